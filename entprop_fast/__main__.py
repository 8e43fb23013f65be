"""Run ``python -m entprop_fast``: list the commands, each in a sentence."""

import sys

from entprop_fast.lab.cli.commands import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

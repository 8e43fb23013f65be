"""Run ``python -m entprop_fast``: list the commands, each in a sentence, or run the one named."""

import sys

from entprop_fast.lab.cli.dispatch import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

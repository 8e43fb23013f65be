"""Run ``python -m entprop_fast.completion``: print a script that completes commands in a shell."""

import sys

from entprop_fast.lab.cli.completion import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

"""Run ``python -m entprop_fast.corrupt``: write a corrupted copy of a test set."""

import sys

from entprop_fast.lab.cli.corrupt import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

"""Run ``python -m entprop_fast.init``: write a commented recipe for a folder of images."""

import sys

from entprop_fast.lab.cli.init import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

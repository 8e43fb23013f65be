"""Run ``python -m entprop_fast.evaluate``: SA, RA, Hscore and more of networks."""

import sys

from entprop_fast.lab.cli.evaluate import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

"""Run ``python -m entprop_fast.train``: train one network; digits without arguments."""

import sys

from entprop_fast.lab.cli.train import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

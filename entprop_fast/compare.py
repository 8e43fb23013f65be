"""Run ``python -m entprop_fast.compare``: methods by seeds on one data set, compared fairly."""

import sys

from entprop_fast.lab.cli.compare import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

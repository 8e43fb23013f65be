"""Run ``python -m entprop_fast.env_report``: everything a bug report should hold."""

import sys

from entprop_fast.lab.cli.env_report import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

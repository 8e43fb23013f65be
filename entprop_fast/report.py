"""Run ``python -m entprop_fast.report``: one HTML file about a run, or several side by side."""

import sys

from entprop_fast.lab.cli.report import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

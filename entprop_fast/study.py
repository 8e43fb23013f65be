"""Run ``python -m entprop_fast.study``: a table, a picture and the sentence that they support."""

import sys

from entprop_fast.lab.cli.study import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

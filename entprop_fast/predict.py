"""Run ``python -m entprop_fast.predict``: classes and probabilities of images."""

import sys

from entprop_fast.lab.cli.predict import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

"""Run ``python -m entprop_fast.export``: a run's network as safetensors, torch and ONNX."""

import sys

from entprop_fast.lab.cli.export import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())

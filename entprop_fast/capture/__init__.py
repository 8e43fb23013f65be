"""Whole training steps as CUDA graphs: see docs/capture.md for what a captured step freezes."""

from entprop_fast.capture.optimizer import capturable_optimizer
from entprop_fast.capture.step import StepCapture

__all__ = ["StepCapture", "capturable_optimizer"]

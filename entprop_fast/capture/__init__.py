"""Run whole training steps as CUDA graphs; docs/capture.md says what a captured step freezes."""

from entprop_fast.capture.optimizer import capturable_optimizer
from entprop_fast.capture.step import StepCapture

__all__ = ["StepCapture", "capturable_optimizer"]

"""Offer the capture of a method's steps and of its backward, as `method.captures`."""

import weakref
from typing import Generic, TypeVar

import torch
from torch import Tensor

from entprop_fast.capture.recorded import Steps
from entprop_fast.capture.shapes import Capture

ResultT = TypeVar("ResultT", bound=tuple[Tensor, ...])


class StepCapture(Generic[ResultT]):
    """Runs a method's steps, and its backward: eagerly, or as replays of what was captured.

    Args:
        steps: the method; its `capture` says "auto", "on" or "off".
    """

    def __init__(self, steps: Steps[ResultT]) -> None:
        self._step, self._backward = (Capture(steps, steps_too=too) for too in (True, False))
        self._of = weakref.proxy(steps)  # which holds this

    def __call__(self, images: Tensor, labels: Tensor) -> ResultT:
        """Take one step on a batch whose shape, dtypes and devices were accepted.

        Raises:
            RuntimeError: `capture` is "on" and the step cannot be captured; it was not taken.
        """
        return self._step(images, labels)

    def backward(self, images: Tensor, labels: Tensor, weight: float) -> ResultT:
        """Add an accepted batch's gradients to `.grad`, those of each weight by their own graph.

        Raises:
            RuntimeError: `capture` is "on" and the passes cannot be captured; they were not taken.
        """
        return self._backward(images, labels, weight)

    @property
    def replays(self) -> int:
        """Count the calls that were replayed so far."""
        return self._step.replays + self._backward.replays

    @property
    def why_eager(self) -> str | None:
        """Return why no call will be captured any more, or None."""
        return self._step.why_eager or self._backward.why_eager

    def check(self) -> None:
        """Refuse what no step could be captured with, where that is known before the first.

        Raises:
            ValueError: `capture` is "on" and model or optimizer cannot be captured.
        """
        if self._of.capture == "on":
            parameter = next(self._of.model.parameters(), None)
            device = torch.device("cpu") if parameter is None else parameter.device
            if reason := self._step.why_not(device):
                raise ValueError(f"capture='on': {reason}")

    def forget(self) -> None:
        """Drop every graph; the coming calls warm up and are captured anew.

        For changes that they are not compared by: see docs/capture.md.
        """
        self._step.forget()
        self._backward.forget()

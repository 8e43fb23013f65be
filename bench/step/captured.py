"""Capture steps of plain PyTorch by the machinery that captures ours."""

import contextlib
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from bench.step.plain import Plain
from entprop_fast.capture import StepCapture


class Losses(NamedTuple):
    """Report a step: 0-dim tensors on its device."""

    loss: Tensor
    aux_loss: Tensor


class CapturedSteps:
    """Be to `StepCapture` what a training method is; every call is one whole step.

    Static images and labels, fused SGD whose lr is a tensor, warm-up and recording are therefore
    those of a captured method: docs/capture.md.

    Args:
        plain: the step, which discards gradients and steps the optimiser by itself.

    Raises:
        RuntimeError: on a call; the step cannot be captured.
    """

    criterion: nn.Module | None = None
    capture: Literal["auto", "on", "off"] = "on"
    cudnn_benchmark: bool = True
    generator: torch.Generator | None
    _graph_key: ClassVar[tuple[str, ...]] = ()

    def __init__(self, plain: Plain) -> None:
        self._step, self.model, self.optimizer, self.generator = plain
        self.rows = 0
        self.captures: StepCapture[Losses] = StepCapture(self)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step, eagerly the first times, then as a replay."""
        return self.captures(images, labels)

    def _run_passes(
        self, images: Tensor, labels: Tensor, weight: float = 1.0, *, before_backward: object = None
    ) -> Losses:  # gradients are summed as PyTorch does
        return Losses(*self._step(images, labels))

    def apply_gradients(self) -> None:
        """Leave the weights as they are: the step has moved them."""

    def _exchange(self, images: Tensor) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _averages(self) -> bool:
        return False

    def why_not_captured(self) -> str | None:
        """Return None: no other process takes part."""
        return None

    def _eager_step(self, images: Tensor, labels: Tensor) -> Losses:
        return self._run_passes(images, labels)

    def _eager_backward(self, images: Tensor, labels: Tensor, weight: float) -> Losses:
        raise RuntimeError("a step of plain PyTorch is captured whole")

"""The passes of a step: how a model is run, what it may return, and the loss of its rows."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entprop_fast.layers.routing import Target, route
from entprop_fast.methods import checks, losses
from entprop_fast.methods.contract import StepResult
from entprop_fast.methods.targets import Targets
from entprop_fast.ops import LossAndEntropy


class Passes:
    """What every method runs its model with. The attributes are those of `Method`."""

    needs_dual_norms: bool = False
    model: nn.Module
    criterion: nn.Module | None
    amp: Literal["bf16"] | None
    check: bool | None
    label_smoothing: float
    rows: int
    _new_shape: bool
    _classes: int | None

    def _check_classes(self, labels: Tensor, classes: int) -> None:
        """Whatever label the step reads is among the classes that the model turned out to have."""
        checks.check_labels(labels, classes)

    def _checks_values(self, images: Tensor) -> bool:
        return images.device.type == "cpu" if self.check is None else self.check

    def _try_single_row(self, image: Tensor, target: Target, reason: str) -> None:
        with self._blaming(image):
            try:
                with torch.no_grad(), self._along(target):
                    self._run_model(image)
            except ValueError as error:
                raise ValueError(
                    f"{reason} is a single row, of which a norm in training mode would see a "
                    f"single value per channel ({error}): use a larger batch or another share"
                ) from error

    def _along(self, target: Target) -> contextlib.AbstractContextManager[None]:
        """Route one pass; without dual norms the model runs as it is."""
        return route(self.model, target) if self.needs_dual_norms else contextlib.nullcontext()

    def _run_model(self, images: Tensor, *, own: bool = False) -> Any:
        """Run the model on images, which stay as they are unless they are its `own`."""
        device = images.device.type
        autocast = torch.autocast(device, torch.bfloat16) if self.amp else contextlib.nullcontext()
        with autocast:
            return self.model(images if own else images.clone())

    @contextlib.contextmanager
    def _blaming(self, images: Tensor) -> Iterator[None]:
        """Blame the images for what the model raises at the first batch of a shape."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:  # timm and torchvision assert their sizes
            if not self._new_shape:
                raise
            raise ValueError(
                f"images of shape {tuple(images.shape)}: the model cannot take them ({error})"
            ) from error

    def _forward(self, images: Tensor, labels: Tensor, *, own: bool = False) -> Tensor:
        """Logits [B, classes], along the current route, for images of a batch.

        Args:
            images: stay as they are, unless they are the pass's `own`, which nothing reads later.
            labels: have to be among the classes.
            own: the model may write into `images`.
        """
        with self._blaming(images):
            output = self._run_model(images, own=own)
        logits = checks.check_logits(output, len(images))
        if logits.shape[1] != self._classes:
            if self._checks_values(images):
                self._check_classes(labels, logits.shape[1])
            self._classes = logits.shape[1]
        self.rows += len(images)
        return logits

    def _evaluate(self, logits: Tensor, targets: Targets, score: str = "entropy") -> LossAndEntropy:
        """Per-sample loss (2), which alone carries a gradient, entropy and score, each [B]."""
        return losses.evaluate(
            logits,
            targets,
            score,
            criterion=self.criterion,
            label_smoothing=self.label_smoothing,
        )

    def _learn_alone(self, logits: Tensor, targets: Targets) -> StepResult:
        """End a step of one pass, which selects nothing: its backward, and what it reports."""
        of_rows, entropy, _ = self._evaluate(logits, targets)
        loss = of_rows.mean()
        loss.backward()
        return StepResult(
            loss=loss.detach(),
            aux_loss=torch.zeros_like(loss),
            correct=(logits.detach().argmax(dim=1) == targets.labels).sum(),
            entropy_selected=torch.full_like(loss, math.nan),
            entropy_unselected=entropy.mean(),
        )

"""Run the network of one step along a route and under autocast, and take its loss."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast import reference
from entprop_fast.layers.recognition import looks_like_norm
from entprop_fast.layers.routing import Target, dual_layers, frozen_statistics, route
from entprop_fast.methods.batch_checks import check_labels, check_logits
from entprop_fast.methods.targets import Targets
from entprop_fast.ops import LossAndEntropy, loss_and_entropy
from entprop_fast.parallel.dealt_rows import DealtRows
from entprop_fast.torch_internals import versions_of

_TOO_SMALL = "more than 1 spatial element"  # what an instance norm asks for, whatever the batch


@contextlib.contextmanager
def casts_kept(device: str) -> Iterator[None]:
    """Let the passes in the block share what autocast casts of the weights, `Network.cast`.

    Autocast drops its casts when its outermost block ends: without this, each pass's own. A cast
    saves nothing for its backward pass, so that each pass can go back through it.
    """
    as_it_is = torch.autocast(
        device,
        torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=torch.is_autocast_cache_enabled(),
    )
    with as_it_is:
        torch.clear_autocast_cache()  # inside of a caller's autocast: of weights before their step
        try:
            yield
        finally:
            torch.clear_autocast_cache()  # the weights change next


@dataclass
class Network:
    """Hold what the passes of one step run and learn from.

    Attributes:
        model: the network.
        criterion: the loss in place of cross-entropy, or None.
        label_smoothing: of the cross-entropy.
        bf16: run forward passes under bfloat16 autocast.
        dual: the model has dual norms, which a route chooses from.
        check_values: labels may be read, which synchronises a GPU.
        new_shape: no batch of this shape has gone through yet.
        classes: of the model, None before the first forward.
        dealt: how the batch is dealt out over the processes; one alone has all rows.
        labels_of_all: stand for the labels of all processes, where these are checked together.
        overlapped: surrounds the last backward pass of a step.
        before_backward: is told the loss of each pass that the weights learn from, where a graph is
            recorded, of weights without hooks.
        weight: of every gradient that the parameters get, beside what their loss weighs.
        summed: losses are summed over rows, and `equalized` divides the gradients.
        rows: how many went through a forward and a backward pass.
        cast: weights whose casts the passes share, as long as these weights stay as they are.
    """

    model: nn.Module
    criterion: nn.Module | None
    label_smoothing: float
    bf16: bool
    dual: bool
    check_values: bool
    new_shape: bool
    classes: int | None
    dealt: DealtRows
    labels_of_all: Tensor | None
    overlapped: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
    before_backward: Callable[[Tensor], None] | None = None
    weight: float = 1.0
    summed: bool = False
    rows: int = 0
    cast: list[Tensor] = field(default_factory=list)
    _as_cast: list[int] | None = None  # where the weights lay before the last pass, and how changed

    def along(self, target: Target) -> contextlib.AbstractContextManager[None]:
        """Route one pass; without dual norms the model runs as it is."""
        return route(self.model, target) if self.dual else contextlib.nullcontext()

    def last_pass(self) -> contextlib.AbstractContextManager[None]:
        """Surround the last backward pass of a step, during which gradients may be exchanged."""
        return contextlib.nullcontext() if self.summed else self.overlapped()  # to be divided yet

    def frozen_statistics(self) -> contextlib.AbstractContextManager[None]:
        """Use batch statistics in the auxiliary norms without moving their running ones."""
        if not self.dual:  # one set of norms serves both kinds of pass
            return frozen_statistics(filter(looks_like_norm, self.model.modules()))
        return frozen_statistics(layer.aux for layer in dual_layers(self.model))

    def forward(self, images: Tensor, labels: Tensor, *, own: bool = False) -> Tensor:
        """Return the logits [B, classes] of images, along the current route.

        Args:
            images: stay as they are, unless they are the pass's `own`, which nothing reads later.
            labels: have to be among the classes.
            own: the model may write into `images`.

        Raises:
            ValueError: the model cannot take the images, returns something else than logits, or
                has fewer classes.
        """
        with self._blaming(images):
            output = self._run(images, own=own)
        logits = check_logits(output, len(images))
        if logits.shape[1] != self.classes:
            if self.check_values:
                of_all = labels if self.labels_of_all is None else self.labels_of_all
                check_labels(of_all, logits.shape[1])
            self.classes = logits.shape[1]
        self.rows += len(images)
        return logits

    def losses(self, logits: Tensor, targets: Targets, score: str = "entropy") -> LossAndEntropy:
        """Return per-sample loss (2), which alone carries a gradient, entropy and score, each [B].

        Args:
            logits: [B, classes].
            targets: of the rows.
            score: one that `entprop_fast.ops.loss_and_entropy` computes.

        Raises:
            ValueError: the criterion's loss is not one per sample.
        """
        labels, labels_b, lam, dealt = targets
        if self.criterion is None and (lam is None or lam.ndim == 0):
            partners = None if lam is None else labels_b
            return loss_and_entropy(logits, labels, partners, lam, self.label_smoothing, score)
        logits = reference.full_precision(logits)
        of_rows = self._losses_of(logits, labels, dealt)
        if lam is not None:
            of_rows = reference.mixed_loss(of_rows, self._losses_of(logits, labels_b, dealt), lam)
        fixed = logits.detach()
        entropy = reference.entropy(fixed)
        return LossAndEntropy(of_rows, entropy, reference.uncertainty(fixed, labels, score))

    def _losses_of(self, logits: Tensor, labels: Tensor, dealt: DealtRows | None) -> Tensor:
        """Return the losses [B] of one label a row; a criterion sees the rows of all processes."""
        if self.criterion is None:
            smoothing = self.label_smoothing
            return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        # Copies: one that shifts logits in place (a margin) must not shift scores, nor the next.
        dealt = DealtRows(len(labels)) if dealt is None else dealt
        logits, labels = dealt.gather_with_gradient(logits), dealt.gather(labels)
        of_rows: Tensor = self.criterion(logits.clone(), labels.clone())
        if of_rows.shape != labels.shape:
            raise ValueError(
                f"criterion gave a loss of shape {tuple(of_rows.shape)}: expected one per sample, "
                f"{tuple(labels.shape)} (reduction='none')"
            )
        return dealt.share(of_rows)

    def objective(self, of_rows: Tensor, targets: Targets, weight: float) -> Tensor:
        """Return a pass's share in (6): its weighted mean, or sum where `equalized` divides."""
        loss = of_rows.sum() if self.summed else targets.mean(of_rows)
        return weight * self.weight * loss

    def go_back(self, loss: Tensor) -> None:
        """Take the backward pass of an `objective`, for the weights' gradients."""
        if self.before_backward is not None:
            self.before_backward(loss)
        loss.backward()

    def try_single_row(self, image: Tensor, target: Target, reason: str) -> None:
        """Refuse a single row along a route where a norm cannot take one.

        Raises:
            ValueError: `reason`, and what to change.
        """
        with self._blaming(image):
            try:
                with torch.no_grad(), self.along(target):
                    self._run(image)
            except (ValueError, ZeroDivisionError) as error:  # timm's EvoNorm divides by n - 1
                if _TOO_SMALL in str(error):
                    raise
                raise ValueError(
                    f"{reason} is a single row, of which a norm in training mode would see a "
                    f"single value per channel ({error}): use a larger batch or another share"
                ) from error

    def _run(self, images: Tensor, *, own: bool = False) -> Any:
        self._drop_stale_casts()
        device = images.device.type
        autocast = torch.autocast(device, torch.bfloat16) if self.bf16 else contextlib.nullcontext()
        with autocast:
            return self.model(images if own else images.clone())

    def _drop_stale_casts(self) -> None:
        """Have this pass cast for itself where the last one changed weights, as noise on them does.

        A module that changes its weights does so in each of its forwards.
        """
        if not self.cast:
            return
        now = [*map(Tensor.data_ptr, self.cast), *versions_of(self.cast)]
        if self._as_cast not in (None, now):
            torch.clear_autocast_cache()
        self._as_cast = now

    @contextlib.contextmanager
    def _blaming(self, images: Tensor) -> Iterator[None]:
        """Blame the images for what the model raises at the first batch of a shape."""
        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:  # timm and torchvision assert
            ours = isinstance(error, ValueError) and _TOO_SMALL not in str(error)
            if ours or not self.new_shape:
                raise
            raise ValueError(
                f"images of shape {tuple(images.shape)}: the model cannot take them ({error})"
            ) from error

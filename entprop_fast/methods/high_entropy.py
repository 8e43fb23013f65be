"""What EntProp and its pipelined form share: (1), (4) and the free step of (5)."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.layers.routing import Target
from entprop_fast.methods.options import check_choice, check_number
from entprop_fast.methods.propagation import Propagation
from entprop_fast.methods.targets import Targets, cutmix, mixup
from entprop_fast.ops import gather_perturb


class HighEntropy(Propagation):
    """The batch mixed, the rows of highest entropy chosen and moved along the main gradient.

    Arguments are those of `EntProp`; `eps` of None is `alpha`, the radius of a single step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        k: float,
        eps: float | None,
        alpha: float,
        mixup: float,
        cutmix: float,
        score: str,
        aux_labels: Literal["original", "mixed"],
        aux_weight: float,
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, **options)
        self.k = check_number("k", k, low=0, open_low=True, high=1)
        self.alpha = self.units.check_distance("alpha", alpha)
        self.eps = self.alpha if eps is None else self.units.check_distance("eps", eps)
        self.mixup = check_number("mixup", mixup, low=0)
        self.cutmix = check_number("cutmix", cutmix, low=0)
        self.aux_weight = check_number("aux_weight", aux_weight, low=0, open_low=True)
        check_choice("score", score, tuple(reference.SCORES))
        check_choice("aux_labels", aux_labels, ("original", "mixed"))
        self.score, self.aux_labels = score, aux_labels
        if self.cutmix and self.mixup:
            raise ValueError(
                f"cutmix={self.cutmix:g} with mixup={self.mixup:g}: a batch is mixed one way; use "
                "mixup=0 with cutmix, or cutmix=0"
            )

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        """(1), or (8) in its place."""
        mixing, beta = (cutmix, self.cutmix) if self.cutmix else (mixup, self.mixup)
        return mixing(images, labels, beta, self.generator)

    def _aux_targets(self, targets: Targets, index: Tensor) -> Targets:
        """What the auxiliary loss of the rows at `index` is taken against."""
        chosen = targets.rows(index)
        return Targets.unmixed(chosen.labels) if self.aux_labels == "original" else chosen

    def _first_step(self, x: Tensor, gradient: Tensor, index: Tensor) -> Tensor:
        """The free step of (5): the rows of `x` at `index`, moved along theirs of `gradient`."""
        alpha, eps = (self.units.distance(value, x) for value in (self.alpha, self.eps))
        return gather_perturb(x, gradient, index, alpha, eps, *self.units.bounds(x))

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        yield from super()._single_rows(batch)
        if (m := reference.num_selected(self.k, batch)) == 1:
            yield "aux", f"k={self.k:g} of a batch of B={batch}, m={m},"

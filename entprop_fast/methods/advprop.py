"""AdvProp (Xie et al., *Adversarial Examples Improve Image Recognition*, CVPR 2020)."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.eval_mode import evaluating
from entprop_fast.layers.routing import Target
from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import StepResult
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.options import check_choice, check_count, check_flag
from entprop_fast.methods.propagation import Propagation, unselected
from entprop_fast.methods.selection import check_selection, num_attacked
from entprop_fast.methods.targets import Targets
from entprop_fast.options import option


@dataclass(frozen=True, kw_only=True)
class AdvPropOptions(CommonOptions):
    """Hold the options of `AdvProp`."""

    n: int = option(
        5,
        "Steps of the attack; one more auxiliary pass follows, which the weights learn from.",
        low=1,
    )
    eps: float = fields.distance(4 / 255, "Radius of the perturbation.")
    alpha: float = fields.distance(1 / 255, "The attack's step.")
    random_start: bool = option(
        True, "Start uniform in +-eps (9); False starts at the image itself."
    )
    attack_mode: Literal["train", "eval"] = option(
        "train",
        'The attack sees batch statistics ("train") or the auxiliary running ones, with dropout at '
        'rest ("eval"); neither moves any.',
    )
    attack_loss: Literal["ce", "cw", "trades"] = option(
        "ce",
        'What the attack climbs: "ce" (the training loss), "cw" (10) or "trades" (11), which '
        "starts from a random offset only.",
    )
    k: float | None = fields.share(
        None,
        "Share of the batch that is attacked, the rows of highest score, as in EntProp (4); None "
        "for all.",
    )
    score: str = fields.score()

    def __post_init__(self) -> None:
        """Check what no option can say alone."""
        super().__post_init__()
        fields.check_attack_loss(self.attack_loss, self.criterion)
        fields.check_score_used(self.k, self.score)
        if self.attack_loss == "trades" and not self.random_start:
            raise ValueError(
                "attack_loss='trades' has no gradient at the image itself: use it with "
                "random_start=True"
            )


class AdvProp(Propagation):
    """Clean rows through the main norms, the same rows attacked through the auxiliary ones.

    The attack is PGD through the auxiliary norms; the objective is the mean of both losses.

    Args:
        model: has dual norms (`convert_dual_norm`).
        optimizer: made after the conversion.
        n: steps of the attack; one more auxiliary pass follows, which the weights learn from.
        eps: radius of the perturbation in image units.
        alpha: the attack's step, in image units.
        random_start: start uniform in +-eps (9); False: from the image itself.
        attack_mode: "train": the attack sees batch statistics; "eval": the auxiliary running ones,
            and dropout rests. Neither moves any.
        attack_loss: what the attack climbs: "ce" (the training loss), "cw" (10) or "trades" (11),
            which starts from a random offset only.
        k: share of the batch that is attacked, the rows of highest `score`, as in EntProp (4);
            None for all.
        score: what selects; see `EntProp`.
        **options: see `Method`.
    """

    name = "advprop"
    Options = AdvPropOptions

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        n: int = 5,
        eps: float = 4 / 255,
        alpha: float = 1 / 255,
        random_start: bool = True,
        attack_mode: Literal["train", "eval"] = "train",
        attack_loss: Literal["ce", "cw", "trades"] = "ce",
        k: float | None = None,
        score: str = "entropy",
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, **options)
        self.n = check_count("n", n)
        self.eps = self.units.check_distance("eps", eps)
        self.alpha = self.units.check_distance("alpha", alpha)
        self.random_start = check_flag("random_start", random_start)
        check_choice("attack_mode", attack_mode, ("train", "eval"))
        self.attack_mode = attack_mode
        self._set_attack_loss(attack_loss)
        if attack_loss == "trades" and not random_start:
            raise ValueError(
                "attack_loss='trades' has no gradient at the image itself: use it with "
                "random_start=True"
            )
        self.k, self.score = check_selection(k, score)

    def cost(self, batch: int) -> float:
        """``1 + (n + 1) * m / B`` for m attacked rows: 2 + n without a selection."""
        return 1 + (self.n + 1) * num_attacked(self.k, batch) / batch

    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        x, targets = images.detach(), Targets.unmixed(labels)
        m = num_attacked(self.k, len(x))
        start = self._draw_start(x, m) if self.random_start else torch.zeros_like(x[:m])
        main = self._main_pass(x, targets, weight=0.5)
        if self.k is None:
            index, entropies = torch.arange(m, device=x.device), unselected(main)
        else:
            index, entropies = self._select(main, m)
        x_a = self._displaced(x[index], start)
        aux_loss = self._aux_passes(x, index, x_a, targets.rows(index), main, self.n + 1)
        return StepResult(main.loss, aux_loss, main.correct, *entropies)

    def _attacking(self) -> contextlib.AbstractContextManager[None]:
        return evaluating(self.model) if self.attack_mode == "eval" else super()._attacking()

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        yield from super()._single_rows(batch)
        if self.k is not None and reference.num_selected(self.k, batch) == 1:
            yield "aux", f"k={self.k:g} of a batch of B={batch}, m=1,"

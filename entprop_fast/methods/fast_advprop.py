"""Fast AdvProp (Mei et al., ICLR 2022): AdvProp at hardly more than the cost of plain training."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.layers.routing import Target
from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import StepResult
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.equalize import equalized
from entprop_fast.methods.options import check_number
from entprop_fast.methods.propagation import Propagation, unselected
from entprop_fast.methods.selection import check_selection
from entprop_fast.methods.targets import Targets
from entprop_fast.parallel.rows import shuffle_rows

P_ADV = 0.2


@dataclass(frozen=True, kw_only=True)
class FastAdvPropOptions(CommonOptions):
    """Hold the options of `FastAdvProp`."""

    p_adv: float = fields.share(
        P_ADV,
        "Share of the batch that is attacked, its last max(1, floor(p_adv * B + 0.5)) rows.",
        open_high=True,
    )
    eps: float = fields.distance(1 / 255, "Radius of the perturbation.")
    alpha: float = fields.distance(1 / 255, "The attack's step.")
    k: float | None = fields.share(
        None,
        "EntProp's selection in place of the split: all rows go through the main norms, and this "
        "share of highest score is attacked (4); None for the split.",
    )
    score: str = fields.score()

    def __post_init__(self) -> None:
        """Check what no option can say alone."""
        super().__post_init__()
        fields.check_score_used(self.k, self.score)
        if self.k is not None and self.p_adv != P_ADV:
            raise ValueError(
                f"p_adv={self.p_adv!r} with k={self.k!r}: the selection takes the place of the "
                "split; leave p_adv out, or k"
            )


class FastAdvProp(Propagation):
    """The first rows of a batch clean through the main norms, the last ones attacked.

    The attack is one step from a random start, through the auxiliary norms; the weights learn from
    its pass (weight 0.5) and from the one after it (weight 0.5). Losses are summed over rows, and
    each gradient is divided by the weighted number of rows that reached its parameter.

    Args:
        model: has dual norms (`convert_dual_norm`).
        optimizer: made after the conversion.
        p_adv: share of the batch that is attacked, in (0, 1): its last
            ``max(1, floor(p_adv * B + 0.5))`` rows.
        eps: radius of the perturbation in image units.
        alpha: the attack's step, in image units.
        k: EntProp's selection in place of the split: all rows go through the main norms, and the
            share `k` of highest `score` is attacked (4); None for the split.
        score: what selects; see `EntProp`.
        **options: see `Method`.
    """

    name = "fast_advprop"
    Options = FastAdvPropOptions
    accumulate = "all"
    _sums = True

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        p_adv: float = P_ADV,
        eps: float = 1 / 255,
        alpha: float = 1 / 255,
        k: float | None = None,
        score: str = "entropy",
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, **options)
        self.p_adv = check_number("p_adv", p_adv, low=0, open_low=True, high=1, open_high=True)
        self.eps = self.units.check_distance("eps", eps)
        self.alpha = self.units.check_distance("alpha", alpha)
        self.k, self.score = check_selection(k, score)
        if k is not None and self.p_adv != P_ADV:
            raise ValueError(
                f"p_adv={p_adv!r} with k={k!r}: the selection takes the place of the split; leave "
                "p_adv out, or k"
            )

    def main_rows(self, batch: int) -> int:
        """Without a selection, what the split leaves of the batch."""
        return batch - self._attacked(batch) if self.k is None else batch

    def cost(self, batch: int) -> float:
        """Main rows once and attacked rows twice: about ``1 + p_adv``, or ``1 + 2 * k``."""
        return (self.main_rows(batch) + 2 * self._attacked(batch)) / batch

    @property
    def _exchanges_rows(self) -> bool:
        return True

    def _attacked(self, batch: int) -> int:
        return reference.num_selected(self.p_adv if self.k is None else self.k, batch)

    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        x, first, m = images.detach(), self.main_rows(len(images)), self._attacked(len(images))
        if first == 0:
            raise ValueError(
                f"a batch of B={len(x)}: p_adv={self.p_adv:g} leaves it no clean row; use a larger "
                "batch or a smaller p_adv"
            )
        start = self._draw_start(x, m)
        with equalized(self.model, self.criterion, first, m):
            main = self._main_pass(x[:first], Targets.unmixed(labels[:first]))
            if self.k is None:
                index = torch.arange(first, len(x), device=x.device)
                self.selected_index, entropies = index, unselected(main)
            else:
                index, entropies = self._select(main, m)
            x_a = self._displaced(x[index], start)
            targets = Targets.unmixed(labels[index])
            aux_loss = self._aux_passes(x, index, x_a, targets, main, passes=2)
        return StepResult(main.loss, aux_loss, main.correct, *entropies)

    def _last_rows(self, x_a: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """Shuffled over the processes: a batch's own statistics would tell its rows apart."""
        same = x_a.dtype, tuple(x_a.shape[1:])
        held = [rows for (rows,) in self._agreement.agree("the shuffle", same, (len(x_a),))]
        x_a, labels = shuffle_rows(x_a, targets.labels, self.generator, held)
        return x_a, Targets.unmixed(labels)

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        if self.main_rows(batch) == 1:
            yield "main", f"what p_adv={self.p_adv:g} leaves of a batch of B={batch}"
        if self.main_rows(batch) and self._attacked(batch) == 1:
            share = f"p_adv={self.p_adv:g}" if self.k is None else f"k={self.k:g}"
            yield "aux", f"{share} of a batch of B={batch}, m=1,"

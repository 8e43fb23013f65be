"""Train with Fast AdvProp (Mei et al., ICLR 2022): hardly more than the cost of plain training."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from entprop_fast import reference
from entprop_fast.layers.routing import Target
from entprop_fast.methods import common_options as fields
from entprop_fast.methods.attack import attack, displace, draw_start
from entprop_fast.methods.base import Method
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.equalize import equalized
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import StepResult, learn, main_pass
from entprop_fast.methods.selection import choose, take_last, unselected
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


class FastAdvProp(Method):
    """Train on the first rows of a batch through the main norms, on the last ones attacked.

    The attack is one step from a random start, through the auxiliary norms; the weights learn from
    its pass and from the one after it. Losses are summed over rows, and each gradient is divided by
    the weighted number of rows that reached its parameter. The model has dual norms
    (`convert_dual_norm`).
    """

    name = "fast_advprop"
    needs_dual_norms = True
    Options = FastAdvPropOptions
    options: FastAdvPropOptions

    def main_rows(self, batch: int) -> int:
        """Return what the split leaves of the batch; all of it with a selection."""
        return batch - self._attacked(batch) if self.options.k is None else batch

    def cost(self, batch: int) -> float:
        """Return main rows once, attacked rows twice: about ``1 + p_adv``, or ``1 + 2 * k``."""
        return (self.main_rows(batch) + 2 * self._attacked(batch)) / batch

    def _equalizes(self) -> bool:
        return True

    def _exchanges_rows(self) -> bool:
        return not self._exact

    def _attacked(self, batch: int) -> int:
        o = self.options
        return reference.num_selected(o.p_adv if o.k is None else o.k, batch)

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        o, x, batch = self.options, images.detach(), net.dealt.total
        clean, m = net.dealt.first(self.main_rows(batch)), self._attacked(batch)
        if clean.total == 0:
            raise ValueError(
                f"a batch of B={batch}: p_adv={o.p_adv:g} leaves it no clean row; use a larger "
                "batch or a smaller p_adv"
            )
        ball = self.units.ball(o.alpha, o.eps, x)
        attacked = net.dealt.after(clean.total) if o.k is None else net.dealt.first(m)
        start = draw_start(x, attacked, ball, o.generator)  # (9)

        # 4. Every gradient is divided by the weighted number of rows that reached its parameter.
        with equalized(net, clean.total, m):
            # 1. The clean rows through the main norms, weight 1.
            targets = Targets.unmixed(labels[: clean.held], clean)
            main = main_pass(net, x[: clean.held], targets, score=o.score, generator=o.generator)

            # (4) The last rows are attacked, or the m of highest score.
            if o.k is None:
                whole = Targets.unmixed(labels, net.dealt)
                rows = take_last(main, x, whole, attacked, unselected(main, targets))
            else:
                rows = choose(main, m, x, targets, net.dealt)
            self.selected_index = rows.numbers

            # 2. From the start through the auxiliary norms, weight 1/2; one step (5).
            self.perturbed = attack(
                net,
                rows.x,
                rows.at,
                displace(rows.x[rows.at], start, ball),
                rows.targets,
                ball,
                steps=1,
                weight=0.5,
                surroundings=net.frozen_statistics,
            )

            # 3. The perturbed rows through the auxiliary norms, weight 1/2.
            x_a, targets = self._shuffled(self.perturbed, rows.targets)
            with net.along("aux"):
                aux_loss = learn(net, x_a, targets, 0.5, last=True)
        return StepResult(main.loss, aux_loss, main.correct, *rows.entropies)

    def _shuffled(self, x_a: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """Shuffle over the processes: a batch's own statistics would tell its rows apart."""
        if not self._exchanges_rows():  # the statistics are of all rows
            return x_a, targets
        same = x_a.dtype, tuple(x_a.shape[1:])
        held = [rows for (rows,) in self._agreement.agree("the shuffle", same, (len(x_a),))]
        x_a, labels = shuffle_rows(x_a, targets.labels, self.options.generator, held)
        return x_a, Targets.unmixed(labels)

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        o = self.options
        if self.main_rows(batch) == 1:
            yield "main", f"what p_adv={o.p_adv:g} leaves of a batch of B={batch}"
        if self.main_rows(batch) and self._attacked(batch) == 1:
            share = f"p_adv={o.p_adv:g}" if o.k is None else f"k={o.k:g}"
            yield "aux", f"{share} of a batch of B={batch}, m=1,"

"""Train with AdvProp (Xie et al., *Adversarial Examples Improve Image Recognition*, 2020)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor

from entprop_fast import reference
from entprop_fast.eval_mode import evaluating
from entprop_fast.layers.routing import Target
from entprop_fast.methods import common_options as fields
from entprop_fast.methods.attack import attack, displace, draw_start
from entprop_fast.methods.base import Method
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import StepResult, learn, main_pass
from entprop_fast.methods.selection import choose, take_last, unselected
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
    random_start: bool = option(True, "Start uniform in +-eps (9), not at the image itself.")
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


class AdvProp(Method):
    """Train on clean rows through the main norms, on the same attacked through the auxiliary.

    The attack is PGD through the auxiliary norms; the objective is the mean of both losses. The
    model has dual norms (`convert_dual_norm`).
    """

    name = "advprop"
    needs_dual_norms = True
    Options = AdvPropOptions
    options: AdvPropOptions

    def cost(self, batch: int) -> float:
        """Return ``1 + (n + 1) * m / B`` for m attacked rows: 2 + n without a selection."""
        return 1 + (self.options.n + 1) * self._attacked(batch) / batch

    def _attacked(self, batch: int) -> int:
        """Return how many rows of a batch are attacked: m (4), or all."""
        k = self.options.k
        return batch if k is None else reference.num_selected(k, batch)

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        o, m = self.options, self._attacked(net.dealt.total)
        x, targets = images.detach(), Targets.unmixed(labels, net.dealt)
        ball = self.units.ball(o.alpha, o.eps, x)
        # (9), or the images themselves.
        attacked = net.dealt.first(m)
        start = x.new_zeros((attacked.held, *x.shape[1:]))
        if o.random_start:
            start = draw_start(x, attacked, ball, o.generator)

        # 1. The clean batch through the main norms, weight 1/2.
        main = main_pass(net, x, targets, score=o.score, generator=o.generator, weight=0.5)

        # (4) All rows are attacked, or the m of highest score.
        clean = o.attack_loss == "trades"
        if o.k is None:
            rows = take_last(main, x, targets, attacked, unselected(main, targets))
        else:
            rows = choose(main, m, x, targets, net.dealt, logits=clean)
            self.selected_index = rows.numbers

        # 2. From the start, n times: an auxiliary pass, and a step along its gradient (5).
        self.perturbed = x_a = attack(
            net,
            rows.x,
            rows.at,
            displace(rows.x[rows.at], start, ball),
            rows.targets,
            ball,
            steps=o.n,
            loss=o.attack_loss,
            clean=rows.logits[rows.at] if clean and rows.logits is not None else None,
            surroundings=(
                partial(evaluating, net.model) if o.attack_mode == "eval" else net.frozen_statistics
            ),
        )

        # 3. The attacked rows through the auxiliary norms, weight 1/2.
        with net.along("aux"):
            aux_loss = learn(net, x_a, rows.targets, 0.5, last=True)
        return StepResult(main.loss, aux_loss, main.correct, *rows.entropies)

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        yield from super()._single_rows(batch)
        if self.options.k is not None and self._attacked(batch) == 1:
            yield "aux", f"k={self.options.k:g} of a batch of B={batch}, m=1,"

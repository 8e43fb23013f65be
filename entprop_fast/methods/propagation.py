"""What methods with auxiliary passes share: the main pass, the selection, the attack."""

import contextlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from entprop_fast import reference
from entprop_fast.layers.routing import dual_layers, frozen_statistics
from entprop_fast.methods.base import Method
from entprop_fast.methods.checks import image_gradient
from entprop_fast.methods.options import check_choice
from entprop_fast.methods.targets import Targets
from entprop_fast.ops import LossAndEntropy, perturb_, select_topk
from entprop_fast.ops.loss_and_entropy import SCORES as FUSED_SCORES
from entprop_fast.parallel.rows import gather_rows, own_share

Entropies = tuple[Tensor, Tensor]  # means over the selected rows and over the others


class MainPass(NamedTuple):
    """What the main pass leaves, detached.

    Attributes:
        loss: mean over the rows.
        correct: rows predicted as their original label.
        entropy: [B].
        score: [B], which the selection ranks.
        logits: [B, classes].
        gradient: of the images (3), [B, C, H, W], or None where nobody asked for it.
    """

    loss: Tensor
    correct: Tensor
    entropy: Tensor
    score: Tensor
    logits: Tensor
    gradient: Tensor | None


class Everywhere(NamedTuple):
    """What each process holds, by rank, where rows are chosen among those of all.

    Attributes:
        held: rows of its batch.
        dealt: how many of the chosen ones it perturbs.
    """

    held: list[int]
    dealt: list[int]


class Propagation(Method):
    """A main pass, then passes of perturbed rows through the auxiliary norms.

    The attributes below are what its subclasses differ in, options of theirs or fixed.
    """

    needs_dual_norms = True
    alpha: float
    eps: float
    score: str = "entropy"
    selection: str = "rank"
    accumulate: str = "last"  # the weights learn from the last auxiliary pass, or from all
    aux_weight: float = 0.5
    aux_stats: str = "last"
    attack_loss: str = "ce"
    _sums: bool = False  # losses are summed over rows: `equalized` divides the gradients

    def _set_attack_loss(self, attack_loss: str) -> None:
        check_choice("attack_loss", attack_loss, reference.ATTACK_LOSSES)
        if attack_loss != "ce" and self.criterion is not None:
            raise ValueError(
                f"attack_loss={attack_loss!r} reads logits of its own and leaves the criterion "
                "out: use attack_loss='ce', which attacks the criterion's loss, or no criterion"
            )
        self.attack_loss = attack_loss

    def _main_pass(
        self, x: Tensor, targets: Targets, *, weight: float = 1.0, gradient: bool = False
    ) -> MainPass:
        """(2) and (3): the loss, every row's entropy and score, and the images' gradient."""
        x = x.detach().requires_grad_(gradient)
        with self._along("main"):
            logits = self._forward(x, targets.labels)
            found = self._evaluate_scored(logits, targets)
            # Backward inside the route, so that a checkpointed forward is computed along it again.
            self._objective(found.loss, weight).backward()
        return self._left_by(logits, targets, found, x.grad)

    def _evaluate_scored(self, logits: Tensor, targets: Targets) -> LossAndEntropy:
        """`_evaluate` with the score that selects, where one read of the logits gives both."""
        fused = self.score if self.score in FUSED_SCORES else "entropy"
        return self._evaluate(logits, targets, fused)

    def _left_by(
        self, logits: Tensor, targets: Targets, found: LossAndEntropy, gradient: Tensor | None
    ) -> MainPass:
        """What the main pass with these logits leaves."""
        fixed, score = logits.detach(), found.score
        if self.score not in FUSED_SCORES and self.score != "random":  # that one is drawn later
            score = reference.uncertainty(fixed, targets.labels, self.score)
        correct = (fixed.argmax(dim=1) == targets.labels).sum()
        return MainPass(found.loss.detach().mean(), correct, found.entropy, score, fixed, gradient)

    @property
    def _exchanges_rows(self) -> bool:
        return self.selection == "global"

    def _select(
        self, main: MainPass, m: int, everywhere: Everywhere | None = None
    ) -> tuple[Tensor, Entropies]:
        """(4): the m rows of highest score, and the mean entropies of the chosen and the others.

        Args:
            main: the main pass.
            m: how many.
            everywhere: with it the rows are those of all processes, in the order of the ranks, and
                this one's share of the chosen comes back.
        """
        entropy, score = main.entropy, main.score
        if self.score == "random":
            score = torch.rand(
                len(entropy), generator=self.generator, device=entropy.device, dtype=entropy.dtype
            )
        if everywhere is None:
            index = ranking = select_topk(score, m)
        else:
            held, dealt = everywhere
            entropy, score = gather_rows(entropy, held), gather_rows(score, held)
            ranking = select_topk(score, sum(dealt))
            index = own_share(ranking, dealt)
        chosen = torch.zeros_like(entropy).index_fill_(0, ranking, 1.0)
        self.selected_index = index
        return index, (_mean(entropy, chosen), _mean(entropy, 1 - chosen))

    def _draw_start(self, x: Tensor, rows: int) -> Tensor:
        """(9): the offset of each of so many rows, in the units of the images."""
        eps = self.units.distance(self.eps, x).view(-1, 1, 1)
        return reference.draw_start(rows, x, eps, self.generator)

    def _displaced(self, x: Tensor, offset: Tensor) -> Tensor:
        low, high = (bound.view(-1, 1, 1) for bound in self.units.bounds(x))
        return reference.displace(x, offset, low, high)

    def _aux_passes(
        self, x: Tensor, index: Tensor, x_a: Tensor, targets: Targets, main: MainPass, passes: int
    ) -> Tensor:
        """(5): so many passes of `x_a`, moved around ``x[index]`` between them.

        Args:
            x: the images that the attack keeps to, [B, C, H, W].
            index: the rows of `x` and of `main` that are attacked, [m].
            x_a: where the attack stands, [m, C, H, W]; overwritten.
            targets: of the rows at `index`.
            main: the main pass.
            passes: the weights learn from the last, or with ``accumulate="all"`` from every one.

        Returns:
            The mean loss of the last pass.
        """
        alpha, eps = (self.units.distance(value, x) for value in (self.alpha, self.eps))
        low, high = self.units.bounds(x)
        clean = main.logits[index] if self.attack_loss == "trades" else None
        for _ in range(passes - 1):
            x_a = x_a.detach().requires_grad_()
            with self._along("aux"), self._attacking():
                if self.accumulate == "all":
                    self._learn(x_a, targets, self.aux_weight)
                else:
                    logits = self._forward(x_a, targets.labels)
                    loss = self._attack_losses(logits, targets, clean).mean()
                    (x_a.grad,) = torch.autograd.grad(loss, x_a, allow_unused=True)
            gradient = image_gradient(x_a.grad)
            perturb_(x_a.detach(), gradient, x, index, alpha, eps, low, high)
        self.perturbed = x_a.detach()
        x_a, targets = self._last_rows(self.perturbed, targets)
        with self._along("aux"):
            return self._learn(x_a, targets, self.aux_weight)

    def _learn(self, x: Tensor, targets: Targets, weight: float, *, own: bool = False) -> Tensor:
        """A pass along the current route that the weights learn from; its mean loss."""
        losses = self._evaluate(self._forward(x, targets.labels, own=own), targets).loss
        self._objective(losses, weight).backward()
        return losses.detach().mean()

    def _last_rows(self, x_a: Tensor, targets: Targets) -> tuple[Tensor, Targets]:
        """The rows of the last auxiliary pass."""
        return x_a, targets

    def _attack_losses(self, logits: Tensor, targets: Targets, clean: Tensor | None) -> Tensor:
        """What an auxiliary pass that serves the attack alone climbs, [m]."""
        if self.attack_loss == "cw":
            return reference.cw_loss(logits, targets.labels)
        if self.attack_loss == "trades":
            assert clean is not None
            return reference.trades_loss(logits, clean)
        return self._evaluate(logits, targets).loss

    def _objective(self, losses: Tensor, weight: float) -> Tensor:
        """A pass's share in (6): its weighted mean, or sum where `equalized` divides later."""
        return weight * (losses.sum() if self._sums else losses.mean())

    def _attacking(self) -> contextlib.AbstractContextManager[None]:
        """Every auxiliary pass but the last: batch statistics, and running ones that stay."""
        if self.aux_stats == "every":
            return contextlib.nullcontext()
        if not self.needs_dual_norms:  # one set of norms serves both kinds of pass
            return frozen_statistics(self.model.modules())
        return frozen_statistics(layer.aux for layer in dual_layers(self.model))


def unselected(main: MainPass) -> Entropies:
    """The entropies of a step that selects nothing."""
    return torch.full_like(main.loss, math.nan), main.entropy.mean()


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of the values of weight 1, NaN without any; what has weight 0 may be NaN itself."""
    return torch.where(weights > 0, values, 0).sum() / weights.sum()

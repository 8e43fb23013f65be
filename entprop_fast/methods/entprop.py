"""EntProp (Enomoto, UAI 2024): the equations in brackets are those of docs/algorithm.md."""

import contextlib
from collections.abc import Iterator
from typing import Literal, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.distributed import gather_rows, own_share
from entprop_fast.layers.routing import Target, dual_layers, frozen_statistics
from entprop_fast.methods.base import CommonOptions, Method, StepResult
from entprop_fast.methods.equalize import equalized
from entprop_fast.methods.options import check_choice, check_count, check_flag, check_number
from entprop_fast.methods.targets import Targets, mixup
from entprop_fast.ops import gather_perturb, perturb_, select_topk


class MainPass(NamedTuple):
    """What the main pass leaves, detached: mean loss and correct rows; entropy, score [B]; (3)."""

    loss: Tensor
    correct: Tensor
    entropy: Tensor
    score: Tensor
    gradient: Tensor


class EntProp(Method):
    """MixUp through the main norms; the rows of highest entropy, perturbed, through the auxiliary.

    Args:
        model: has dual norms (`convert_dual_norm`).
        optimizer: made after the conversion.
        k: share of the batch that is selected, in (0, 1]; ``max(1, floor(k * B + 0.5))`` rows (4).
        n: auxiliary passes, each after one more step of the perturbation (5).
        eps: radius of the perturbation in image units; None for ``(n + 1) * alpha``, or `alpha`
            if n is 1.
        alpha: its step, in image units.
        mixup: lam ~ Beta(mixup, mixup), one for each batch (1); 0 mixes nothing, and the step is
            then a deterministic function of its inputs.
        score: what selects: "entropy", "confidence", "cross_entropy", "margin" or "random".
        aux_labels: labels of the auxiliary loss: "original", or "mixed" for the two-label form.
        accumulate: "last": the weights learn from the last auxiliary pass alone (6); "all": from
            every one, as in free adversarial training.
        aux_weight: weight of the auxiliary loss, more than 0.
        aux_stats: the auxiliary running statistics move in the "last" pass or in "every" one.
        selection: "rank": each process selects among its own rows; "global": among the rows of all.
        equalize: divide each gradient by the weighted number of rows that reached its parameter.
        **options: see `Method`.
    """

    name = "entprop"
    needs_dual_norms = True

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        k: float = 0.2,
        n: int = 1,
        eps: float | None = None,
        alpha: float = 1 / 255,
        mixup: float = 1.0,
        score: str = "entropy",
        aux_labels: Literal["original", "mixed"] = "original",
        accumulate: Literal["last", "all"] = "last",
        aux_weight: float = 1.0,
        aux_stats: Literal["last", "every"] = "last",
        selection: Literal["rank", "global"] = "rank",
        equalize: bool = False,
        **options: Unpack[CommonOptions],
    ) -> None:
        super().__init__(model, optimizer, **options)
        self.k = check_number("k", k, low=0, open_low=True, high=1)
        self.n = check_count("n", n)
        self.alpha = check_number("alpha", alpha, low=0)
        default = self.alpha if n == 1 else (n + 1) * self.alpha
        self.eps = default if eps is None else check_number("eps", eps, low=0)
        self.mixup = check_number("mixup", mixup, low=0)
        self.aux_weight = check_number("aux_weight", aux_weight, low=0, open_low=True)
        self.equalize = check_flag("equalize", equalize)
        check_choice("score", score, reference.SCORES)
        check_choice("aux_labels", aux_labels, ("original", "mixed"))
        check_choice("accumulate", accumulate, ("last", "all"))
        check_choice("aux_stats", aux_stats, ("last", "every"))
        check_choice("selection", selection, ("rank", "global"))
        self.score, self.aux_labels, self.accumulate = score, aux_labels, accumulate
        self.aux_stats, self.selection = aux_stats, selection

    def cost(self, batch: int) -> float:
        """``1 + n * m / B``: the paper's 1 + k * n, with the rounding of m."""
        return 1 + self.n * reference.num_selected(self.k, batch) / batch

    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        x, targets = mixup(images, labels, self.mixup, self.generator)
        m = reference.num_selected(self.k, len(images))
        shares: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self.equalize:
            aux_rows = self.aux_weight * m * self._kept_passes
            shares = equalized(self.model, self.criterion, len(images), aux_rows)
        with shares:
            main = self._main_pass(x, targets)
            index, entropies = self._select(main, m)
            if self.selection == "global":
                x, main = gather_rows(x), main._replace(gradient=gather_rows(main.gradient))
                targets = targets.of_all_processes()
            aux_loss = self._aux_passes(x, targets.rows(index), index, main.gradient)
        return StepResult(main.loss, aux_loss, main.correct, *entropies)

    @property
    def _kept_passes(self) -> int:
        """Auxiliary passes whose weight gradients are kept."""
        return self.n if self.accumulate == "all" else 1

    def _main_pass(self, x: Tensor, targets: Targets) -> MainPass:
        """(2) and (3): the loss, every row's entropy and score, and the images' gradient."""
        x_m = x.detach().requires_grad_()
        with self._along("main"):
            logits = self._forward(x_m, targets.labels)
            fused_score = "entropy" if self.score == "random" else self.score
            losses, entropy, score = self._evaluate(logits, targets, fused_score)
            # Backward inside the route, so that a checkpointed forward is computed along it again.
            self._objective(losses, 1.0).backward()
        assert x_m.grad is not None
        correct = (logits.detach().argmax(dim=1) == targets.labels).sum()
        return MainPass(losses.detach().mean(), correct, entropy, score, x_m.grad)

    def _select(self, main: MainPass, m: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(4): the m rows of highest score, and the mean entropies of the chosen and the others.

        With ``selection="global"`` the rows are those of all processes, in the order of the ranks.
        """
        entropy, score = main.entropy, main.score
        if self.score == "random":
            score = reference.random_score(entropy, self.generator)
        rows = len(score)
        if self.selection == "global":
            entropy, score = gather_rows(entropy), gather_rows(score)
        ranking = select_topk(score, m * (len(score) // rows))
        chosen = torch.zeros_like(entropy).index_fill_(0, ranking, 1.0)
        index = own_share(ranking) if self.selection == "global" else ranking
        self.selected_index = index
        return index, (_mean(entropy, chosen), _mean(entropy, 1 - chosen))

    def _aux_passes(self, x: Tensor, targets: Targets, index: Tensor, gradient: Tensor) -> Tensor:
        """(5): n passes of ``x[index]`` through the auxiliary norms; the last one's mean loss."""
        if self.aux_labels == "original":
            targets = Targets.unmixed(targets.labels)
        alpha, eps = (self.units.distance(value, x) for value in (self.alpha, self.eps))
        low, high = self.units.bounds(x)
        x_a = gather_perturb(x, gradient, index, alpha, eps, low, high)
        for i in range(1, self.n + 1):
            last = i == self.n
            x_a = x_a.detach().requires_grad_(not last)
            with self._along("aux"), self._moving(last):
                logits = self._forward(x_a, targets.labels)
                losses = self._evaluate(logits, targets).loss
                if last or self.accumulate == "all":
                    self._objective(losses, self.aux_weight).backward()
                else:
                    x_a.grad = torch.autograd.grad(losses.mean(), x_a)[0]
            if x_a.grad is not None:
                perturb_(x_a.detach(), x_a.grad, x, index, alpha, eps, low, high)
        self.perturbed = x_a.detach()
        return losses.detach().mean()

    def _objective(self, losses: Tensor, weight: float) -> Tensor:
        """A pass's share in (6): its weighted mean, or sum where `equalize` divides later."""
        return weight * (losses.sum() if self.equalize else losses.mean())

    @contextlib.contextmanager
    def _moving(self, last: bool) -> Iterator[None]:
        """Let the auxiliary running statistics move in this pass, or hold them."""
        held = [] if last or self.aux_stats == "every" else dual_layers(self.model)
        with frozen_statistics(layer.aux for layer in held):
            yield

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        yield from super()._single_rows(batch)
        if (m := reference.num_selected(self.k, batch)) == 1:
            yield "aux", f"k={self.k:g} of a batch of B={batch}, m={m},"


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of the values of weight 1, NaN without any; what has weight 0 may be NaN itself."""
    return torch.where(weights > 0, values, 0).sum() / weights.sum()

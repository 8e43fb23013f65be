"""EntProp (Enomoto, UAI 2024): the equations in brackets are those of docs/algorithm.md."""

import contextlib
from collections.abc import Iterator
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.distributed import gather_rows, own_share
from entprop_fast.layers.routing import Target, dual_layers, frozen_statistics
from entprop_fast.methods.base import CommonOptions, Method, StepResult
from entprop_fast.methods.batch import Batch, mixup
from entprop_fast.methods.equalize import equalized
from entprop_fast.methods.options import check_choice, check_count, check_flag, check_number


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
        batch = mixup(images, labels, self.mixup, self.generator)
        m = reference.num_selected(self.k, len(images))
        shares: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self.equalize:
            aux_rows = self.aux_weight * m * self._kept_passes
            shares = equalized(self.model, self.criterion, len(images), aux_rows)
        with shares:
            logits, loss, gradient = self._main_pass(batch)
            chosen, gradient, entropies = self._select(logits, batch, gradient, m)
            aux_loss = self._aux_passes(chosen, gradient)
        return StepResult(loss, aux_loss, (logits.argmax(dim=1) == labels).sum(), *entropies)

    @property
    def _kept_passes(self) -> int:
        """Auxiliary passes whose weight gradients are kept."""
        return self.n if self.accumulate == "all" else 1

    def _main_pass(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(2) and (3): logits, mean loss and the images' gradient, all detached."""
        x_m = batch.images.detach().requires_grad_()
        with self._along("main"):
            logits = self._forward(x_m, batch.labels)
            losses = self._losses(logits, batch)
            # Backward inside the route, so that a checkpointed forward is computed along it again.
            self._objective(losses, 1.0).backward()
        assert x_m.grad is not None
        return logits.detach(), losses.detach().mean(), x_m.grad

    def _select(
        self, logits: Tensor, batch: Batch, gradient: Tensor, m: int
    ) -> tuple[Batch, Tensor, tuple[Tensor, Tensor]]:
        """(4): the m rows of highest score, their gradient, and both groups' mean entropy."""
        entropy = reference.entropy(logits)
        score = entropy
        if self.score != "entropy":
            score = reference.uncertainty(logits, batch.labels, self.score, self.generator)
        if self.selection == "global":
            batch = batch.of_all_processes()
            score, entropy, gradient = (gather_rows(t) for t in (score, entropy, gradient))
        ranking = reference.select_topk(score, m * (len(score) // len(logits)))
        selected = torch.zeros_like(entropy).index_fill_(0, ranking, 1.0)
        entropies = _mean(entropy, selected), _mean(entropy, 1 - selected)
        index = own_share(ranking) if self.selection == "global" else ranking
        self.selected_index = index
        return batch.rows(index), gradient[index], entropies

    def _aux_passes(self, chosen: Batch, gradient: Tensor) -> Tensor:
        """(5): n passes through the auxiliary norms; the last one's mean loss."""
        x_0 = chosen.images
        rows = chosen if self.aux_labels == "mixed" else chosen.unmixed()
        low, high = self.units.bounds(x_0)
        step = {
            "alpha": self.units.distance(self.alpha, x_0),
            "eps": self.units.distance(self.eps, x_0),
            "low": low,
            "high": high,
        }
        x_a = x_0
        for i in range(1, self.n + 1):
            x_a = reference.perturb(x_a.detach(), gradient, x_0, **step)
            last = i == self.n
            x_a.requires_grad_(not last)
            with self._along("aux"), self._moving(last):
                losses = self._losses(self._forward(x_a, rows.labels), rows)
                if last or self.accumulate == "all":
                    self._objective(losses, self.aux_weight).backward()
                    gradient = gradient if x_a.grad is None else x_a.grad
                else:
                    (gradient,) = torch.autograd.grad(losses.mean(), x_a)
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

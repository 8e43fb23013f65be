"""EntProp (Enomoto, UAI 2024): the equations in brackets are those of docs/algorithm.md."""

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import StepResult
from entprop_fast.methods.checks import image_gradient
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.equalize import equalized
from entprop_fast.methods.high_entropy import HighEntropy
from entprop_fast.methods.options import check_choice, check_count, check_flag
from entprop_fast.methods.propagation import Everywhere, MainPass
from entprop_fast.methods.targets import Targets
from entprop_fast.options import option
from entprop_fast.parallel.rows import gather_rows


def default_eps(n: int, alpha: float) -> float:
    """Choose the radius of `n` auxiliary passes of step `alpha`: the paper's n + 1 steps, or 1."""
    return alpha if n == 1 else (n + 1) * alpha


@dataclass(frozen=True, kw_only=True)
class EntPropOptions(CommonOptions):
    """Hold the options of `EntProp`."""

    k: float = fields.share(
        0.2, "Share of the batch that is selected; max(1, floor(k * B + 0.5)) rows (4)."
    )
    n: int = option(1, "Auxiliary passes, each after one more step of the perturbation (5).", low=1)
    eps: float | None = fields.distance(
        None, "Radius of the perturbation; None for (n + 1) * alpha, or alpha if n is 1."
    )
    alpha: float = fields.distance(1 / 255, "The perturbation's step.")
    mixup: float = fields.mixup(1.0)
    cutmix: float = fields.cutmix(0.0)
    score: str = fields.score()
    aux_labels: Literal["original", "mixed"] = option(
        "original",
        'Labels of the auxiliary loss: "original", or "mixed" for the two-label form.',
    )
    accumulate: Literal["last", "all"] = option(
        "last",
        'The weights learn from the "last" auxiliary pass (6), or from "all", as in free '
        "adversarial training.",
    )
    aux_weight: float = fields.weight(1.0, "Weight of the auxiliary loss.")
    aux_stats: Literal["last", "every"] = option(
        "last",
        'The auxiliary running statistics move in the "last" pass or in "every" one.',
    )
    selection: Literal["rank", "global"] = option(
        "rank", 'Each process selects among its own rows ("rank") or all among all ("global").'
    )
    equalize: bool = option(
        False, "Divide each gradient by the weighted number of rows that reached its parameter."
    )
    attack_loss: Literal["ce", "cw", "trades"] = option(
        "ce",
        'What steps 2 to n of the perturbation climb: "ce" (the auxiliary loss), "cw" (10) or '
        '"trades" (11); the first step is free, along the main pass\'s loss (3).',
    )
    norms: Literal["dual", "shared"] = option(
        "dual",
        'Two sets of norms ("dual"), or "shared" for the control experiment on a plain model: '
        "every pass through its only norms, whose running statistics move with the main pass and "
        "where auxiliary ones would.",
    )

    def __post_init__(self) -> None:
        """Check what no option can say alone."""
        super().__post_init__()
        fields.check_one_mixing(self.mixup, self.cutmix)
        fields.check_attack_loss(self.attack_loss, self.criterion)
        if self.attack_loss == "ce":
            return
        given = f"attack_loss={self.attack_loss!r}"
        if self.n == 1:
            raise ValueError(
                f"{given} with n=1: the first step is along the main pass's own loss, and there "
                "is no second; use n=2 or more, or attack_loss='ce'"
            )
        if self.accumulate == "all":
            raise ValueError(
                f"{given} with accumulate='all', whose passes have one backward for weights and "
                "images: use accumulate='last', or attack_loss='ce'"
            )
        if self.attack_loss == "cw" and self.aux_labels == "mixed":
            raise ValueError(
                f"{given} knows one label a row, and aux_labels='mixed' gives two: use "
                "aux_labels='original', or attack_loss='ce' or 'trades'"
            )


class EntProp(HighEntropy):
    """MixUp through the main norms; the rows of highest entropy, perturbed, through the auxiliary.

    Args:
        model: has dual norms (`convert_dual_norm`).
        optimizer: made after the conversion.
        k: share of the batch that is selected, in (0, 1]; ``max(1, floor(k * B + 0.5))`` rows (4).
        n: auxiliary passes, each after one more step of the perturbation (5).
        eps: radius of the perturbation in image units; None for ``(n + 1) * alpha``, or `alpha`
            if n is 1.
        alpha: its step, in image units.
        mixup: lam ~ Beta(mixup, mixup), one for each batch (1); 0 mixes nothing, and without
            `cutmix` the step is then a deterministic function of its inputs.
        cutmix: CutMix in place of MixUp (8), with lam ~ Beta(cutmix, cutmix); needs ``mixup=0``.
        score: what selects: "entropy", "confidence", "cross_entropy", "margin" or "random" (the
            paper's), "energy" or "gini".
        aux_labels: labels of the auxiliary loss: "original", or "mixed" for the two-label form.
        accumulate: "last": the weights learn from the last auxiliary pass alone (6); "all": from
            every one, as in free adversarial training.
        aux_weight: weight of the auxiliary loss, more than 0.
        aux_stats: the auxiliary running statistics move in the "last" pass or in "every" one.
        selection: "rank": each process selects among its own rows; "global": among the rows of all.
        equalize: divide each gradient by the weighted number of rows that reached its parameter.
        attack_loss: what steps 2 to n of the perturbation climb: "ce" (the auxiliary loss), "cw"
            (10) or "trades" (11); the first step is free, along the main pass's loss (3).
        norms: "dual", or "shared": the control experiment on a plain model, every pass through its
            only norms, whose running statistics move with the main pass and where auxiliary ones
            would.
        **options: see `Method`.
    """

    name = "entprop"
    Options = EntPropOptions

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
        cutmix: float = 0.0,
        score: str = "entropy",
        aux_labels: Literal["original", "mixed"] = "original",
        accumulate: Literal["last", "all"] = "last",
        aux_weight: float = 1.0,
        aux_stats: Literal["last", "every"] = "last",
        selection: Literal["rank", "global"] = "rank",
        equalize: bool = False,
        attack_loss: Literal["ce", "cw", "trades"] = "ce",
        norms: Literal["dual", "shared"] = "dual",
        **options: Any,
    ) -> None:
        check_choice("norms", norms, ("dual", "shared"))
        self.norms, self.needs_dual_norms = norms, norms == "dual"
        super().__init__(
            model,
            optimizer,
            k=k,
            eps=eps,
            alpha=alpha,
            mixup=mixup,
            cutmix=cutmix,
            score=score,
            aux_labels=aux_labels,
            aux_weight=aux_weight,
            **options,
        )
        self.n = check_count("n", n)
        if eps is None:
            self.eps = default_eps(n, self.alpha)
        self.equalize = self._sums = check_flag("equalize", equalize)
        check_choice("accumulate", accumulate, ("last", "all"))
        check_choice("aux_stats", aux_stats, ("last", "every"))
        check_choice("selection", selection, ("rank", "global"))
        self.accumulate, self.aux_stats, self.selection = accumulate, aux_stats, selection
        self._set_attack_loss(attack_loss)
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.norms == "shared" and any(isinstance(m, DualNorm) for m in self.model.modules()):
            raise ValueError(
                "norms='shared' sends every pass through the only norms of a plain model, and this "
                "one has dual norms: call strip_auxiliary(model) and make the optimizer after "
                "that, or use norms='dual'"
            )
        if self.attack_loss == "ce":
            return
        given = f"attack_loss={self.attack_loss!r}"
        if self.n == 1:
            raise ValueError(
                f"{given} with n=1: the first step is along the main pass's own loss, and there "
                "is no second; use n=2 or more, or attack_loss='ce'"
            )
        if self.accumulate == "all":
            raise ValueError(
                f"{given} with accumulate='all', whose passes have one backward for weights and "
                "images: use accumulate='last', or attack_loss='ce'"
            )
        if self.attack_loss == "cw" and self.aux_labels == "mixed":
            raise ValueError(
                f"{given} knows one label a row, and aux_labels='mixed' gives two: use "
                "aux_labels='original', or attack_loss='ce' or 'trades'"
            )

    def cost(self, batch: int) -> float:
        """``1 + n * m / B``: the paper's 1 + k * n, with the rounding of m."""
        return 1 + self.n * reference.num_selected(self.k, batch) / batch

    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        x, targets = self._mixed(images, labels)
        m = reference.num_selected(self.k, len(images))
        shares: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self.equalize:
            aux_rows = self.aux_weight * m * (self.n if self.accumulate == "all" else 1)
            shares = equalized(self.model, self.criterion, len(images), aux_rows)
        with shares:
            main = self._main_pass(x, targets, gradient=True)
            gradient, everywhere = image_gradient(main.gradient), None
            if self.selection == "global":
                everywhere = self._rows_everywhere(x, main, targets, m)
            index, entropies = self._select(main, m, everywhere)
            if everywhere is not None:
                held = everywhere.held
                x, gradient = gather_rows(x, held), gather_rows(gradient, held)
                main = main._replace(logits=gather_rows(main.logits, held))
                targets = targets.of_all_processes(held)
            targets = self._aux_targets(targets, index)
            x_a = self._first_step(x, gradient, index)
            aux_loss = self._aux_passes(x, index, x_a, targets, main, self.n)
        return StepResult(main.loss, aux_loss, main.correct, *entropies)

    def _rows_everywhere(self, x: Tensor, main: MainPass, targets: Targets, m: int) -> Everywhere:
        """How many rows each process has and how many it perturbs; all else has to be alike."""
        tensors = (x, main.logits, main.score)
        same = [(t.dtype, tuple(t.shape[1:])) for t in tensors], targets.lam is None
        found = self._agreement.agree("selection='global'", same, (len(x), m))
        return Everywhere([rows for rows, _ in found], [chosen for _, chosen in found])

"""Train with EntProp (Enomoto, UAI 2024); docs/algorithm.md has the equations in brackets."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.layers.routing import Target
from entprop_fast.methods import common_options as fields
from entprop_fast.methods import model_checks
from entprop_fast.methods.attack import attack, free_step
from entprop_fast.methods.base import Method
from entprop_fast.methods.batch_checks import image_gradient
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.equalize import equalized
from entprop_fast.methods.image_units import Ball
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import MainPass, StepResult, learn, main_pass
from entprop_fast.methods.selection import choose
from entprop_fast.methods.targets import Targets, aux_targets, mixed
from entprop_fast.options import option
from entprop_fast.parallel.dealt_rows import RowsOfAll, StackedRows


def default_eps(n: int, alpha: float) -> float:
    """Choose the radius of `n` auxiliary passes of step `alpha`: the paper's n + 1 steps, or 1."""
    return alpha if n == 1 else (n + 1) * alpha


def default_mixup(mixup: float | None, jsd: float) -> float:
    """Choose MixUp's parameter where it is left out: 1, or 0 of rows with three views."""
    if mixup is None:
        return 0.0 if jsd else 1.0
    return mixup


@dataclass(frozen=True, kw_only=True)
class EntPropOptions(CommonOptions):
    """Hold the options of `EntProp`."""

    k: float = fields.share(
        0.2, "Share of the batch that is selected; max(1, floor(k * B + 0.5)) rows (4)."
    )
    n: int = option(1, "Auxiliary passes, each after one more step of the perturbation (5).", low=1)
    eps: float | None = fields.distance(
        None, "Radius of the perturbation. Left out, it is (n + 1) * alpha, or alpha if n is 1."
    )
    alpha: float = fields.distance(1 / 255, "The perturbation's step.")
    mixup: float | None = fields.mixup(
        None,
        help="MixUp's lam ~ Beta(mixup, mixup), one for each batch (1); 0 mixes nothing. Left out, "
        "it is 1, or 0 with jsd.",
    )
    cutmix: float = fields.cutmix(0.0)
    jsd: float = fields.jsd(0.0)
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
    norms: Literal["dual", "shared", "affine", "statistics"] = option(
        "dual",
        'Two sets of norms ("dual"); of control experiments: "shared" on a plain model, every pass '
        "through its only norms, whose running statistics move with the main pass and where "
        'auxiliary ones would; "affine", two sets of affine parameters over one set of running '
        'statistics, which moves likewise; "statistics", two sets of statistics under one affine.',
    )

    def __post_init__(self) -> None:
        """Check what no option can say alone."""
        super().__post_init__()
        fields.check_unmixed_views(self.jsd, self.mixup, self.cutmix)
        fields.check_one_mixing(default_mixup(self.mixup, self.jsd), self.cutmix)
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


class EntProp(Method):
    """Train on MixUp, and on the rows of highest entropy, perturbed, through auxiliary norms.

    The model has dual norms (`convert_dual_norm`); where `norms` lets their halves share a part,
    they go on to do so after the method is gone, and copies of the model do, too. With ``mixup=0``,
    no CutMix and no random score the step is a deterministic function of its inputs.
    """

    name = "entprop"
    needs_dual_norms = True
    Options = EntPropOptions
    options: EntPropOptions

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> None:
        self.needs_dual_norms = options.get("norms") != "shared"
        super().__init__(model, optimizer, **options)
        self._shared_as = self.options.norms

    def _prepare(self, model: nn.Module) -> None:
        model_checks.prepare_halves(self.name, model, self.options.norms)

    def _check_call(self, images: Tensor, labels: Tensor) -> None:
        if self.options.norms != self._shared_as:
            raise ValueError(
                f"norms={self.options.norms!r} of a method made with norms={self._shared_as!r}, "
                "which decided what the halves share: make another method, on a model of its own"
            )
        super()._check_call(images, labels)

    @property
    def eps(self) -> float:
        """Return the radius of the perturbation, in image units."""
        o = self.options
        return default_eps(o.n, o.alpha) if o.eps is None else o.eps

    @property
    def mixup(self) -> float:
        """Return the parameter of MixUp's Beta distribution; 0 where nothing is mixed by it."""
        return default_mixup(self.options.mixup, self.options.jsd)

    def cost(self, batch: int) -> float:
        """Return ``1 + n * m / B``, the paper's 1 + k * n with the rounding of m; 2 more of `jsd`.

        The auxiliary passes take first views alone.
        """
        return self.views + self.options.n * reference.num_selected(self.options.k, batch) / batch

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        o, m = self.options, reference.num_selected(self.options.k, net.dealt.total)
        model_checks.share_halves(net.model, o.norms)  # again, where the model was moved meanwhile
        passes: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if o.equalize:
            aux_rows = o.aux_weight * m * (o.n if o.accumulate == "all" else 1)
            passes = equalized(net, net.dealt.total, aux_rows)

        # (1) MixUp of the whole batch, or (8) CutMix.
        x, targets = mixed(images, labels, self.mixup, o.cutmix, o.generator, net.dealt)

        with passes:
            # (2) ONE pass through the main norms: loss and, from the same logits, entropies.
            # (3) Its backward pass gives the images' gradient for free.
            # With `jsd` of three views of each row (17); what follows sees the first.
            main = main_pass(
                net, x, targets, score=o.score, generator=o.generator, gradient=True, jsd=o.jsd
            )
            x = x[: len(labels)]

            # (4) The m rows of highest entropy, among those of this process or of all.
            among, m = self._candidates(net, main, x, targets, m)
            rows = choose(main, m, x, targets, among, logits=o.attack_loss == "trades")
            self.selected_index, targets = rows.numbers, aux_targets(rows.targets, o.aux_labels)

            # (5) The first step is free, along (3). All auxiliary passes but the last serve the
            # next step of the perturbation.
            ball = self.units.ball(o.alpha, self.eps, x)
            self.perturbed = x_a = attack(
                net,
                rows.x,
                rows.at,
                self._first_step(rows.x, image_gradient(rows.gradient), rows.at, ball),
                targets,
                ball,
                steps=o.n - 1,
                loss=o.attack_loss,
                clean=None if rows.logits is None else rows.logits[rows.at],
                weight=o.aux_weight if o.accumulate == "all" else None,
                surroundings=(
                    net.frozen_statistics if o.aux_stats == "last" else contextlib.nullcontext
                ),
            )
            # The weights learn from the last.
            with net.along("aux"):
                aux_loss = learn(net, x_a, targets, o.aux_weight, last=True)

        # (6) L_m + L_c have added up in `.grad`; `Method` takes the optimiser's step.
        return StepResult(main.loss, aux_loss, main.correct, *rows.entropies)

    def _candidates(
        self, net: Network, main: MainPass, x: Tensor, targets: Targets, m: int
    ) -> tuple[RowsOfAll, int]:
        """Return among which rows the step chooses, and how many."""
        if not self._exchanges_rows():
            return net.dealt, m
        tensors = (x, main.logits, main.score)
        same = [(t.dtype, tuple(t.shape[1:])) for t in tensors], targets.lam is None
        found = self._agreement.agree("selection='global'", same, (len(x), m))
        held, dealt = zip(*found, strict=True)
        return StackedRows(held, dealt), sum(dealt)

    def _first_step(self, x: Tensor, gradient: Tensor, index: Tensor, ball: Ball) -> Tensor:
        """Take the free step of (5); a study replaces it."""
        return free_step(x, gradient, index, ball)

    def _equalizes(self) -> bool:
        return self.options.equalize

    def _exchanges_rows(self) -> bool:
        return self.options.selection == "global" and not self._exact

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        yield from super()._single_rows(batch)
        if reference.num_selected(self.options.k, batch) == 1:
            yield "aux", f"k={self.options.k:g} of a batch of B={batch}, m=1,"

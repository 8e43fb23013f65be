"""Train with pipelined EntProp: this step's perturbed rows ride in the next step's main pass."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.layers.routing import Target, route
from entprop_fast.methods import common_options as fields
from entprop_fast.methods.attack import free_step
from entprop_fast.methods.base import Method
from entprop_fast.methods.batch_checks import check_labels, image_gradient
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import (
    MainPass,
    StepResult,
    main_pass,
    main_results,
    scored_losses,
)
from entprop_fast.methods.selection import choose
from entprop_fast.methods.targets import Targets, aux_targets, mixed
from entprop_fast.options import option
from entprop_fast.parallel.dealt_rows import DealtRows

# Where the waiting rows lie: images, labels, and of mixed labels the partners' and lam.
_KEYS = ("images", "labels", "labels_b", "lam")
_MEMORY = ("_images", "_labels", "_labels_b", "_lam")


@dataclass(frozen=True, kw_only=True)
class EntPropPipelinedOptions(CommonOptions):
    """Hold the options of `EntPropPipelined`."""

    k: float = fields.share(0.2, "Share of the batch that is selected (4).")
    eps: float | None = fields.distance(None, "Radius of the perturbation; None for alpha.")
    alpha: float = fields.distance(1 / 255, "The perturbation's one step.")
    mixup: float = fields.mixup(1.0)
    cutmix: float = fields.cutmix(0.0)
    score: str = fields.score()
    aux_labels: Literal["original", "mixed"] = option(
        "original",
        'Labels of the waiting rows: "original", or "mixed" for the two-label form.',
    )
    aux_weight: float = fields.weight(1.0, "Weight of the waiting rows' mean loss.")

    def __post_init__(self) -> None:
        """Check what no option can say alone."""
        super().__post_init__()
        fields.check_one_mixing(self.mixup, self.cutmix)


class EntPropPipelined(Method):
    """Take EntProp in one forward and one backward pass a step: (14) to (16), not the paper's.

    The rows that a step selects and perturbs wait. The next step appends them to its batch: one
    pass, in which each dual norm sends the batch through its main half and the waiting rows
    through its auxiliary one. They are perturbed along the weights of one step ago; all else is
    EntProp with ``n=1``. More steps of the perturbation would need further passes, which is what
    this avoids. The rows of the last step of a training are never learned from.

    Batch norms without an auxiliary half (`convert_dual_norm` names them) see batch and waiting
    rows together.

    Attributes:
        waiting: how many rows the next step takes along; 0 before the first. Set it to 0 to drop
            them, as before images of another size.
    """

    name = "entprop_pipelined"
    needs_dual_norms = True
    Options = EntPropPipelinedOptions
    options: EntPropPipelinedOptions
    _step_state = ("rows", "waiting", *_MEMORY)
    _graph_key = ("waiting",)
    _of_rows = ("waiting",)

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> None:
        super().__init__(model, optimizer, **options)
        self.waiting = 0
        # Rows of the largest batch so far; a smaller one's are the first of them.
        self._images: Tensor | None = None
        self._labels: Tensor | None = None
        self._labels_b: Tensor | None = None
        self._lam: Tensor | None = None

    @property
    def eps(self) -> float:
        """Return the radius of the perturbation, in image units."""
        return self.options.alpha if self.options.eps is None else self.options.eps

    def cost(self, batch: int) -> float:
        """Return ``1 + m / B`` after a batch of the same size; 1 where no row waits."""
        return 1 + reference.num_selected(self.options.k, batch) / batch

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        o = self.options
        # (1) MixUp of the batch, or (8). What waits was mixed a step ago.
        x, targets = mixed(images, labels, o.mixup, o.cutmix, o.generator, net.dealt)

        waiting = self._dealt.waiting

        # (14) and (15) ONE forward and one backward pass, which what waits rides in.
        if waiting.total:
            main, aux_loss = self._one_pass(net, x, targets, waiting)
        else:
            main = main_pass(net, x, targets, score=o.score, generator=o.generator, gradient=True)
            aux_loss = torch.zeros_like(main.loss)

        # (16) The rows of highest entropy, one free step along their gradients: they wait.
        m = reference.num_selected(o.k, net.dealt.total)
        rows = choose(main, m, x, targets, net.dealt)
        self.selected_index, gradient = rows.numbers, image_gradient(rows.gradient)
        x_a = free_step(rows.x, gradient, rows.at, self.units.ball(o.alpha, self.eps, x))
        self.perturbed = x_a
        self._keep(x_a, aux_targets(rows.targets, o.aux_labels))
        return StepResult(main.loss, aux_loss, main.correct, *rows.entropies)

    def _one_pass(
        self, net: Network, x: Tensor, targets: Targets, dealt: DealtRows
    ) -> tuple[MainPass, Tensor]:
        """Take batch and waiting rows through one pass; return also the mean loss of the latter."""
        o = self.options
        x_a, waiting = self._waiting_rows()
        waiting = waiting._replace(dealt=dealt)
        x = x.detach().requires_grad_()
        rows, known = torch.cat((x, x_a)), net.classes
        # (14)
        with route(net.model, len(x), batch=len(rows) or None):
            logits, aux_logits = net.forward(rows, targets.labels, own=True).split(
                (len(x), len(x_a))
            )
            if net.classes != known and net.check_values:
                self._check_waiting(waiting, logits.shape[1])
            found = scored_losses(net, logits, targets, o.score)
            aux_losses = net.losses(aux_logits, waiting).loss
            # (15)
            loss = net.objective(found.loss, targets, 1)
            loss = loss + net.objective(aux_losses, waiting, o.aux_weight)
            with net.last_pass():
                net.go_back(loss)
        main = main_results(net, logits, targets, found, x.grad, o.score, o.generator)
        return main, waiting.mean(aux_losses.detach())

    def _check_waiting(self, waiting: Targets, classes: int) -> None:
        """Refuse waiting rows of classes that the model no longer has."""
        labels = torch.cat((waiting.labels, waiting.labels_b))
        if waiting.dealt is not None:  # those of all processes, which refuse them together
            labels = torch.cat([waiting.dealt.gather(part) for part in waiting[:2]])
        try:
            check_labels(labels, classes)
        except ValueError as error:
            raise ValueError(
                f"{error}; of the {self.waiting} rows that wait, from another head: set the "
                "method's waiting = 0 to drop those"
            ) from None

    def _check_call(self, images: Tensor, labels: Tensor) -> None:
        super()._check_call(images, labels)
        if not self.waiting:
            return
        assert self._images is not None
        here, there = (
            f"{tuple(t.shape[1:])} of {t.dtype} on {t.device}" for t in (images, self._images)
        )
        if here != there:
            raise ValueError(
                f"images of shape {tuple(images.shape)}: entprop_pipelined cannot take them, "
                f"{here}, in one pass with the {self.waiting} rows that wait, {there}; set the "
                "method's waiting = 0 to drop those"
            )

    def _single_rows(self, batch: int) -> Iterator[tuple[Target, str]]:
        yield from super()._single_rows(batch)
        if reference.num_selected(self.options.k, batch) == 1:
            yield "aux", f"k={self.options.k:g} of a batch of B={batch}, m=1,"

    def _waiting_rows(self) -> tuple[Tensor, Targets]:
        assert self._images is not None and self._labels is not None and self._labels_b is not None
        rows = slice(self.waiting)
        lam = self._lam if self._lam is None or self._lam.ndim == 0 else self._lam[rows]
        return self._images[rows], Targets(self._labels[rows], self._labels_b[rows], lam)

    def _keep(self, x_a: Tensor, targets: Targets) -> None:
        """Let these rows wait, in memory that stays: a captured step reads it and writes to it."""
        for name, value in zip(_MEMORY, (x_a, *targets[:3]), strict=True):
            memory: Tensor | None = getattr(self, name)
            if value is None or memory is None or not _fits(value, memory):
                setattr(self, name, None if value is None else value.clone())
            else:
                (memory[: len(value)] if value.ndim else memory).copy_(value)
        self.waiting = len(x_a)

    def state_dict(self) -> dict[str, Any]:
        """Return all state beside model and optimizer that a resumed run needs, with what waits."""
        waiting = None
        if self.waiting or (self._exact and self._images is not None):
            x_a, targets = self._waiting_rows()
            values = zip(_KEYS, (x_a, *targets[:3]), strict=True)
            waiting = {key: None if value is None else value.clone() for key, value in values}
        return super().state_dict() | {"waiting": waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; waiting rows go to the model's device.

        Raises:
            ValueError: see `Method.load_state_dict`.
        """
        waiting: dict[str, Tensor | None] | None = state["waiting"]
        super().load_state_dict(state)
        self.waiting = 0
        if waiting is not None:
            parameter = next(self.model.parameters(), None)
            x_a, labels, labels_b, lam = (
                value if value is None or parameter is None else value.to(parameter.device)
                for value in map(waiting.__getitem__, _KEYS)
            )
            assert x_a is not None and labels is not None and labels_b is not None
            self._keep(x_a, Targets(labels, labels_b, lam))


def _fits(value: Tensor, memory: Tensor) -> bool:
    """Return whether `memory` takes `value` as its first rows, in the same layout."""
    one, other = ((t.dtype, t.device, t.stride(), t.shape[1:]) for t in (value, memory))
    return one == other and (value.ndim == 0 or len(value) <= len(memory))

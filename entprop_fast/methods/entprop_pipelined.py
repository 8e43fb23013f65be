"""EntProp, pipelined: this step's perturbed rows ride in the next step's main pass."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.layers.routing import route
from entprop_fast.methods import checks
from entprop_fast.methods import common_options as fields
from entprop_fast.methods.base import StepResult
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.high_entropy import HighEntropy
from entprop_fast.methods.propagation import MainPass
from entprop_fast.methods.targets import Targets
from entprop_fast.options import option

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


class EntPropPipelined(HighEntropy):
    """EntProp in one forward and one backward pass a step: (14) to (16), ours, not the paper's.

    The rows that a step selects and perturbs wait. The next step appends them to its batch: one
    pass, in which each dual norm sends the batch through its main half and the waiting rows
    through its auxiliary one. They are perturbed along the weights of one step ago; all else is
    EntProp with ``n=1``. More steps of the perturbation would need further passes, which is what
    this avoids. The rows of the last step of a training are never learned from.

    Batch norms without an auxiliary half (`convert_dual_norm` names them) see batch and waiting
    rows together.

    Args:
        model: has dual norms (`convert_dual_norm`).
        optimizer: made after the conversion.
        k: see `EntProp`, as for all that follow.
        eps: radius of the perturbation in image units; None for `alpha`.
        alpha: its one step, in image units.
        mixup: of the batch; the waiting rows were mixed when they were selected.
        cutmix: in place of MixUp.
        score: what selects.
        aux_labels: labels of the waiting rows, "original" or "mixed".
        aux_weight: weight of their mean loss.
        **options: see `Method`.

    Attributes:
        waiting: how many rows the next step takes along; 0 before the first. Set it to 0 to drop
            them, as before images of another size.
    """

    name = "entprop_pipelined"
    Options = EntPropPipelinedOptions
    _carried = ("rows", "waiting", *_MEMORY)
    _captured_by = ("waiting",)

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        k: float = 0.2,
        eps: float | None = None,
        alpha: float = 1 / 255,
        mixup: float = 1.0,
        cutmix: float = 0.0,
        score: str = "entropy",
        aux_labels: Literal["original", "mixed"] = "original",
        aux_weight: float = 1.0,
        **options: Any,
    ) -> None:
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
        self.waiting = 0
        # Rows of the largest batch so far; a smaller one's are the first of them.
        self._images: Tensor | None = None
        self._labels: Tensor | None = None
        self._labels_b: Tensor | None = None
        self._lam: Tensor | None = None

    def cost(self, batch: int) -> float:
        """``1 + m / B`` after a batch of the same size; 1 where no row waits."""
        return 1 + reference.num_selected(self.k, batch) / batch

    def state_dict(self) -> dict[str, Any]:
        """All state beside model and optimizer that a resumed run needs; waiting rows are in it."""
        waiting = None
        if self.waiting:
            x_a, targets = self._waiting_rows()
            values = zip(_KEYS, (x_a, *targets), strict=True)
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

    def _check_classes(self, labels: Tensor, classes: int) -> None:
        super()._check_classes(labels, classes)
        if self.waiting:
            _, waiting = self._waiting_rows()
            try:
                checks.check_labels(torch.cat((waiting.labels, waiting.labels_b)), classes)
            except ValueError as error:
                raise ValueError(
                    f"{error}; of the {self.waiting} rows that wait, from another head: set the "
                    "method's waiting = 0 to drop those"
                ) from None

    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        x, targets = self._mixed(images, labels)
        if self.waiting:
            main, aux_loss = self._one_pass(x, targets)
        else:
            main = self._main_pass(x, targets, gradient=True)
            aux_loss = torch.zeros_like(main.loss)
        gradient = checks.image_gradient(main.gradient)
        index, entropies = self._select(main, reference.num_selected(self.k, len(images)))
        self.perturbed = self._first_step(x, gradient, index)
        self._keep(self.perturbed, self._aux_targets(targets, index))
        return StepResult(main.loss, aux_loss, main.correct, *entropies)

    def _one_pass(self, x: Tensor, targets: Targets) -> tuple[MainPass, Tensor]:
        """(14): the batch and the waiting rows, and the mean loss of these."""
        x_a, aux_targets = self._waiting_rows()
        x = x.detach().requires_grad_()
        rows = torch.cat((x, x_a))
        with route(self.model, len(x), batch=len(rows)):
            logits, aux_logits = self._forward(rows, targets.labels, own=True).split(
                (len(x), len(x_a))
            )
            found = self._evaluate_scored(logits, targets)
            aux_losses = self._evaluate(aux_logits, aux_targets).loss
            loss = self._objective(found.loss, 1) + self._objective(aux_losses, self.aux_weight)
            loss.backward()
        main = self._left_by(logits, targets, found, x.grad)
        return main, aux_losses.detach().mean()

    def _waiting_rows(self) -> tuple[Tensor, Targets]:
        assert self._images is not None and self._labels is not None and self._labels_b is not None
        rows = slice(self.waiting)
        return self._images[rows], Targets(self._labels[rows], self._labels_b[rows], self._lam)

    def _keep(self, x_a: Tensor, targets: Targets) -> None:
        """Let these rows wait, in memory that stays: a captured step reads it and writes to it."""
        for name, value in zip(_MEMORY, (x_a, *targets), strict=True):
            memory: Tensor | None = getattr(self, name)
            if value is None or memory is None or not _fits(value, memory):
                setattr(self, name, None if value is None else value.clone())
            else:
                (memory[: len(value)] if value.ndim else memory).copy_(value)
        self.waiting = len(x_a)


def _fits(value: Tensor, memory: Tensor) -> bool:
    """Whether `memory` takes `value` as its first rows, in the same layout."""
    one, other = ((t.dtype, t.device, t.stride(), t.shape[1:]) for t in (value, memory))
    return one == other and (value.ndim == 0 or len(value) <= len(memory))

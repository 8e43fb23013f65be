"""Train adversarially for free (Shafahi et al., *Adversarial Training for Free!*, 2019)."""

from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.methods import common_options as fields
from entprop_fast.methods.attack import displace
from entprop_fast.methods.base import Method
from entprop_fast.methods.batch_checks import image_gradient
from entprop_fast.methods.common_options import CommonOptions
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import StepResult, only_pass
from entprop_fast.methods.targets import Targets
from entprop_fast.options import option


@dataclass(frozen=True, kw_only=True)
class FreeATOptions(CommonOptions):
    """Hold the options of `FreeAT`."""

    replays: int = option(4, "How often each batch is used.", low=1)
    eps: float = fields.distance(4 / 255, "Radius of the perturbation.")
    alpha: float | None = fields.distance(None, "The perturbation's step; None for eps.")


class FreeAT(Method):
    """Replay each batch; one backward pass of a replay moves the weights and the perturbation.

    The perturbation, `delta`, stays from batch to batch: row i of a batch starts where row i of the
    last one ended, in each process or, with ``ranks="exact"``, in the batch of all. Train for
    ``epochs / replays`` epochs to spend what plain training spends. The optimizer steps once in
    each replay; the auxiliary halves of dual norms take no part.

    Attributes:
        delta: [rows, C, H, W] in the units of the images, rows of the largest batch so far; None
            before the first.
    """

    name = "free_at"
    Options = FreeATOptions
    options: FreeATOptions
    _step_state = ("rows", "delta")
    _of_rows = ("delta",)
    _same_everywhere = ("replays",)

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, **options: Any) -> None:
        super().__init__(model, optimizer, **options)
        self.delta: Tensor | None = None

    @property
    def alpha(self) -> float:
        """Return the perturbation's step, in image units."""
        return self.options.eps if self.options.alpha is None else self.options.alpha

    def __call__(self, images: Tensor, labels: Tensor) -> StepResult:
        """Run `replays` optimiser steps on one batch; the result is the last one's.

        Arguments and errors are those of `Method`.
        """
        for _ in range(self.options.replays):
            result = super().__call__(images, labels)
        return result

    def backward(self, images: Tensor, labels: Tensor, *, weight: float = 1.0) -> NoReturn:
        """Refuse: a replay without its step would repeat the last one.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            "method 'free_at' has no backward(): each of its replays is an optimiser step of its "
            "own, between which the caller would have to step; call the method"
        )

    def cost(self, batch: int) -> float:
        """Return `replays`: so many passes, whatever the batch."""
        return float(self.options.replays)

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        """Take one replay, up to its optimiser step."""
        o, x, delta = self.options, images.detach(), self._delta_for(images)
        ball = self.units.ball(self.alpha, o.eps, x)

        # 1. The displaced images: one forward and one backward pass, for weights and images.
        x_a = displace(x, delta, ball).requires_grad_()
        result = only_pass(net, x_a, Targets.unmixed(labels, net.dealt))

        # 2. The optimiser steps in `Method`; (12) moves delta for the next replay.
        alpha, eps = ball.alpha.view(-1, 1, 1), ball.eps.view(-1, 1, 1)
        self._keep(reference.step_offset(delta, image_gradient(x_a.grad), alpha, eps))
        self.perturbed = x_a.detach()
        return result

    def _delta_for(self, images: Tensor) -> Tensor:
        """Return `delta` of the batch's rows; 0 for those that no batch has had."""
        known = images[:0].detach() if self.delta is None else self.delta
        if known.shape[1:] != images.shape[1:]:
            raise ValueError(
                f"images of shape {tuple(images.shape)}: free_at cannot take them, its delta is "
                f"of images {tuple(known.shape[1:])}; make another method for images of this size"
            )
        new = images.new_zeros((max(0, len(images) - len(known)), *images.shape[1:]))
        return torch.cat((known[: len(images)], new)) if len(new) else known[: len(images)]

    def _keep(self, delta: Tensor) -> None:
        if self.delta is None or len(self.delta) < len(delta):
            self.delta = delta
        else:
            self.delta[: len(delta)].copy_(delta)

    def state_dict(self) -> dict[str, Any]:
        """Return all state beside model and optimizer that a resumed run needs, with `delta`."""
        delta = None if self.delta is None else self.delta.clone()
        return super().state_dict() | {"delta": delta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; `delta` goes to the model's device.

        Raises:
            ValueError: see `Method.load_state_dict`.
        """
        delta: Tensor | None = state["delta"]
        super().load_state_dict(state)
        if delta is not None and self.delta is not None and delta.shape == self.delta.shape:
            self.delta.copy_(delta)  # in place, where a captured step may read it
        elif delta is None:
            self.delta = None
        else:
            parameter = next(self.model.parameters(), delta)
            self.delta = delta.to(parameter.device, copy=True)

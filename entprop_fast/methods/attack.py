"""Perturb rows within a radius of where they were: (5), from the rows themselves or from (9)."""

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from entprop_fast import reference
from entprop_fast.methods.batch_checks import image_gradient
from entprop_fast.methods.image_units import Ball
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import learn
from entprop_fast.methods.targets import Targets
from entprop_fast.ops import gather_perturb, perturb_
from entprop_fast.parallel.dealt_rows import DealtRows


def free_step(x: Tensor, gradient: Tensor, index: Tensor, ball: Ball) -> Tensor:
    """Return the rows at `index` after the first step of (5), along the main pass's gradient."""
    return gather_perturb(x, gradient, index, *ball)


def draw_start(x: Tensor, rows: DealtRows, ball: Ball, generator: torch.Generator | None) -> Tensor:
    """Draw the offset from which this process's rows start, uniform within the radius (9)."""
    eps = ball.eps.view(-1, 1, 1)
    return rows.share(reference.draw_start(rows.total, x, eps, generator))


def displace(x: Tensor, offset: Tensor, ball: Ball) -> Tensor:
    """Return rows moved by an offset, kept within the image range (9)."""
    return reference.displace(x, offset, ball.low.view(-1, 1, 1), ball.high.view(-1, 1, 1))


def attack(
    net: Network,
    x: Tensor,
    index: Tensor,
    x_a: Tensor,
    targets: Targets,
    ball: Ball,
    *,
    steps: int,
    loss: str = "ce",
    clean: Tensor | None = None,
    weight: float | None = None,
    surroundings: Callable[[], contextlib.AbstractContextManager[None]],
) -> Tensor:
    """Take auxiliary passes for their image gradients, with one step of (5) after each.

    Args:
        net: the network.
        x: the images that the attack keeps to, [B, C, H, W].
        index: the rows of `x` that are attacked, [m].
        x_a: where the attack stands, [m, C, H, W]; overwritten.
        targets: of the attacked rows.
        ball: step, radius and range.
        steps: how many.
        loss: what the attack climbs, one of `reference.ATTACK_LOSSES`.
        clean: the main pass's logits of the attacked rows, [m, classes], for "trades".
        weight: the weights learn from these passes, too, with this weight; None: they do not.
        surroundings: of each pass, such as `Network.frozen_statistics`.

    Returns:
        Where the attack ended, [m, C, H, W].
    """
    for _ in range(steps):
        x_a = x_a.detach().requires_grad_()
        with net.along("aux"), surroundings():
            if weight is not None:
                learn(net, x_a, targets, weight)
            else:
                logits = net.forward(x_a, targets.labels)
                climbed = targets.mean(_losses(net, loss, logits, targets, clean))
                (x_a.grad,) = torch.autograd.grad(climbed, x_a, allow_unused=True)
        perturb_(x_a.detach(), image_gradient(x_a.grad), x, index, *ball)  # (5)
    return x_a.detach()


def _losses(
    net: Network, name: str, logits: Tensor, targets: Targets, clean: Tensor | None
) -> Tensor:
    """Return what an attack climbs, [m]."""
    if name == "cw":
        return reference.cw_loss(logits, targets.labels)
    if name == "trades":
        assert clean is not None
        return reference.trades_loss(logits, clean)
    return net.losses(logits, targets).loss

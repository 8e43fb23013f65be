"""Define the steps that are held against ours: PyTorch's own norms, ReLUs, losses and optimisers.

Each is a whole optimiser step, from no gradients to new weights; `captured` records it as it is.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.step.setting import Setting
from entprop_fast import convert_dual_norm, reference, route
from entprop_fast.layers.routing import dual_layers, frozen_statistics
from entprop_fast.models import resnet, wrn

ALPHA = 1 / 255
# One optimiser step on a batch: the main and the auxiliary loss (0 without one).
Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Plain(NamedTuple):
    """Hold a step and what a capture has to know of it."""

    step: Step
    network: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator | None = None


Make = Callable[[Setting, nn.Module], Plain]


def use_plain_pytorch() -> None:
    """Put PyTorch's own modules and functions in the place of the ops, for all of the process."""
    from entprop_fast.ops import backend

    backend.KERNEL_DEVICES.clear()
    for module in (wrn, resnet):
        mock.patch.object(module, "norm_relu", _norm_relu).start()


def _norm_relu(norm: nn.Module, x: Tensor, residual: Tensor | None = None) -> Tensor:
    y = norm(x)
    return F.relu(y if residual is None else y + residual)


def sgd(network: nn.Module) -> torch.optim.SGD:
    """Make the optimiser of every contender, with `torch.optim`'s defaults."""
    return torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)


def _autocast(setting: Setting) -> torch.autocast:
    return torch.autocast(setting.device, torch.bfloat16, enabled=setting.amp is not None)


def _compiled(network: nn.Module, mode: str | None) -> Any:
    return network if mode is None else torch.compile(network, mode=mode)


def vanilla(setting: Setting, network: nn.Module, *, mode: str | None = None) -> Plain:
    """Make plain training, its network compiled where a mode of `torch.compile` is given.

    Modes with CUDA graphs of their own hold forward and backward; the optimiser steps eagerly.
    """
    optimizer, model = sgd(network), _compiled(network, mode)
    none = torch.zeros((), device=setting.device)

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if mode is not None:
            torch.compiler.cudagraph_mark_step_begin()
        optimizer.zero_grad()
        with _autocast(setting):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach(), none

    return Plain(step, network, optimizer)


def entprop(setting: Setting, network: nn.Module, *, mode: str | None = None) -> Plain:
    """Make `entprop_fast.reference`: input gradients alone for i < n, a backward per forward.

    Inductor's own CUDA graphs (`reduce-overhead`, `max-autotune`) refuse a second pass before the
    first one's backward is done with.
    """
    dual = convert_dual_norm(network)
    optimizer, generator = sgd(dual), setting.generator()
    model = _compiled(dual, mode)

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        with _autocast(setting):
            return reference.entprop_step(
                model, optimizer, images, labels, k=setting.k, n=setting.n, generator=generator
            )

    return Plain(step, dual, optimizer, generator)


def compiled_entprop(setting: Setting, network: nn.Module) -> Plain:
    """Make the reference with its whole network compiled, as fast as Inductor takes the device."""
    cuda = setting.device == "cuda"
    return entprop(setting, network, mode="max-autotune-no-cudagraphs" if cuda else "default")


def pipelined(setting: Setting, network: nn.Module) -> Plain:
    """Make `entprop_fast.reference`'s pipelined step."""
    dual = convert_dual_norm(network)
    optimizer, generator = sgd(dual), setting.generator()
    waiting: reference.Waiting | None = None

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal waiting
        with _autocast(setting):
            main, aux, waiting = reference.entprop_pipelined_step(
                dual, optimizer, images, labels, waiting, k=setting.k, generator=generator
            )
        return main, aux

    return Plain(step, dual, optimizer, generator)


def naive(setting: Setting, network: nn.Module) -> Plain:
    """Make `loss.backward()` in every pass, all graphs kept until one backward of the sum."""
    dual = convert_dual_norm(network)
    optimizer, generator = sgd(dual), setting.generator()
    halves = [layer.aux for layer in dual_layers(dual)]
    m, eps = reference.num_selected(setting.k, setting.batch), (setting.n + 1) * ALPHA
    eps = ALPHA if setting.n == 1 else eps

    def forward(x: Tensor, target: Literal["main", "aux"], last: bool) -> Tensor:
        with _autocast(setting), route(dual, target), frozen_statistics(() if last else halves):
            return reference.full_precision(dual(x))

    def step(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        lam = reference.draw_lam(1.0, images, generator)
        partners = reference.draw_partners(images, generator)
        x = reference.mix(images, partners, lam).requires_grad_()
        logits = forward(x, "main", last=True)
        loss_a, loss_b = (F.cross_entropy(logits, y) for y in (labels, labels[partners]))
        main_loss = reference.mixed_loss(loss_a, loss_b, lam)
        main_loss.backward(retain_graph=True)
        assert x.grad is not None
        chosen = reference.select_topk(reference.entropy(logits.detach()), m)
        x_0, y, gradient = x.detach()[chosen], labels[chosen], x.grad[chosen]
        x_a = x_0
        for i in range(1, setting.n + 1):
            x_a = reference.perturb(
                x_a.detach(), gradient, x_0, alpha=ALPHA, eps=eps, low=0.0, high=1.0
            ).requires_grad_()
            aux_loss = F.cross_entropy(forward(x_a, "aux", last=i == setting.n), y)
            if i < setting.n:
                aux_loss.backward()
                assert x_a.grad is not None
                gradient = x_a.grad
        optimizer.zero_grad()
        (main_loss + aux_loss).backward()
        optimizer.step()
        return main_loss.detach(), aux_loss.detach()

    return Plain(step, dual, optimizer, generator)

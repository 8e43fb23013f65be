"""Read a network from outside: features, and the step that EntProp takes for free."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast import reference
from entprop_fast.eval_mode import evaluating
from entprop_fast.methods import EntProp, Method


def radius(method: Method) -> float:
    """Return EntProp's resolved radius in image units; a recipe may leave the option out."""
    if not isinstance(method, EntProp):
        raise TypeError(f"{type(method).__name__} is not EntProp")
    return float(method.eps)


def perturbed(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Take one step of `eps` along the sign of the loss's gradient, kept in [0, 1]; eval mode.

    Args:
        model: in any mode, which it keeps; through its main norms.
        images: ``[N, C, H, W]`` in [0, 1].
        labels: int64 ``[N]``.
        eps: in image units.
    """
    with evaluating(model):
        x = images.detach().requires_grad_()
        loss = F.cross_entropy(model(x.clone()), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
    return reference.displace(images, eps * gradient.sign(), 0, 1)


def features(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the classifier reads ``[N, D]`` and the logits ``[N, classes]``; eval mode.

    Raises:
        ValueError: the network has no linear layer.
    """
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(model).__name__} has no linear layer that could be its classifier")
    read: list[Tensor] = []
    hook = linear[-1].register_forward_pre_hook(lambda module, args: read.append(args[0]))
    try:
        with evaluating(model), torch.no_grad():
            logits: Tensor = model(images.clone())
    finally:
        hook.remove()
    return read[0].flatten(1), logits


def features_of(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return features, logits and labels of images that come in batches."""
    found = [(*features(model, images), labels) for images, labels in batches]
    read, logits, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    return read, logits, labels


def features_by_layer(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the pooled output ``[N, C]`` of every child that gives maps; eval mode."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                found[name] = output.mean(dim=(2, 3))

        return hook

    with contextlib.ExitStack() as hooks, evaluating(model), torch.no_grad():
        for name, child in model.named_children():
            hooks.callback(child.register_forward_hook(keep(name)).remove)
        model(images.clone())
    return found

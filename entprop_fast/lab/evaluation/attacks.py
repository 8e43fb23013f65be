"""Attack a network. EntProp is no defence against attackers: these numbers say by how much."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entprop_fast import ops
from entprop_fast.counter_random import fold, paired_uniforms, row_keys
from entprop_fast.eval_mode import evaluating
from entprop_fast.lab import stopping
from entprop_fast.methods.image_units import ImageUnits

NO_DEFENCE = (
    "EntProp is no defence against adversarial attacks, and its paper says so: an accuracy under "
    "attack is a measurement, not a guarantee."
)

_STANDARD_CLASSES = 10  # AutoAttack's standard version has 9 targets
_START = 0xA77  # sets these draws apart from the corruptions'


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    eps: float = 8 / 255,
    alpha: float = 2 / 255,
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    """Attack by projected gradient ascent on the cross-entropy (Madry et al., ICLR 2018).

    ``x <- clip(x0 + clip(x + alpha sign(grad) - x0, ±eps), 0, 1)``, from a uniform start within
    ±eps that depends on ``(seed, index of the image)`` alone. The model is in eval mode, its
    gradients and flags are left as they were; which norms are attacked is the caller's route.

    Args:
        model: from images in [0, 1] to logits.
        images: floating ``[B, C, H, W]``, in [0, 1], on the model's device.
        labels: int64 ``[B]``.
        steps: 1 or more.
        eps: radius in the maximum norm, in image units.
        alpha: step, in image units.
        seed: any integer.
        first: index of ``images[0]`` in its data set.

    Raises:
        ValueError: ``steps`` below 1, ``eps`` or ``alpha`` not positive.
    """
    if steps < 1:
        raise ValueError(f"steps = {steps} must be at least 1")
    for name, value in (("eps", eps), ("alpha", alpha)):
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} = {value} must be positive, in image units (8/255, say)")
    units = ImageUnits((0.0, 1.0), None)
    images = images.contiguous(memory_format=torch.channels_last)
    index = torch.arange(len(images), device=images.device)
    bounds = units.distance(alpha, images), units.distance(eps, images), *units.bounds(images)
    keys = row_keys(fold((_START, seed)), first, len(images), images.device)
    start = 2 * paired_uniforms(keys, images[0].numel()).view(images.shape) - 1
    attacked = (images + eps * start.to(images.dtype)).clamp_(0, 1)
    attacked = attacked.contiguous(memory_format=torch.channels_last)
    with evaluating(model), torch.enable_grad():
        for _ in range(steps):
            stopping.check()
            x = attacked.detach().requires_grad_()
            loss = F.cross_entropy(model(x.clone()).float(), labels, reduction="sum")
            (grad,) = torch.autograd.grad(loss, x)
            with torch.no_grad():
                grad = grad.contiguous(memory_format=torch.channels_last)
                ops.perturb_(attacked, grad, images, index, *bounds)
    return attacked


def autoattack(
    model: nn.Module, images: Tensor, labels: Tensor, *, eps: float = 8 / 255, seed: int = 0
) -> Tensor:
    """Attack by AutoAttack's standard version (Croce and Hein, ICML 2020), its own package.

    That version attacks towards 9 other classes; where there are fewer logits than 10, towards all
    the others, with the attacks of `autoattack_parts`.

    Args:
        model: from images in [0, 1] to logits, 2 or more.
        images: float32 ``[B, C, H, W]``, in [0, 1].
        labels: int64 ``[B]``.
        eps: radius in the maximum norm, in image units.
        seed: of its random parts.

    Raises:
        ImportError: it is not installed; the message says how to.
        ValueError: the model gives fewer than 2 logits.
        Stopped: a signal came.
    """
    attack = autoattack_class()
    with evaluating(model):
        with torch.no_grad():
            classes = model(images[:1]).shape[1]
        parts = autoattack_parts(classes)
        # A batch takes minutes, most of them in the model.
        asked = model.register_forward_pre_hook(lambda *_: stopping.check())
        try:
            adversary = attack(
                model,
                norm="Linf",
                eps=eps,
                version="standard",
                seed=seed,
                device=images.device,
                verbose=False,
            )
            if classes < _STANDARD_CLASSES:
                adversary.attacks_to_run = list(parts)
                for name in ("apgd_targeted", "fab"):
                    if hasattr(adversary, name):
                        getattr(adversary, name).n_target_classes = classes - 1
            # It views gradients as rows, which it cannot where they are channels_last.
            images = images.contiguous()
            attacked: Tensor = adversary.run_standard_evaluation(images, labels, bs=len(images))
        finally:
            asked.remove()
    return attacked


def autoattack_parts(classes: int) -> tuple[str, ...]:
    """List the attacks that AutoAttack runs on so many logits, by its own names.

    The targeted loss of ``apgd-t`` divides by differences of the 4 largest logits, that of
    ``apgd-dlr`` by one of the 3 largest: with fewer the next simpler one takes its place.
    """
    if classes < 2:
        raise ValueError(f"autoattack needs 2 classes or more, and there is {classes} to choose")
    if classes >= 4:
        return ("apgd-ce", "apgd-t", "fab-t", "square")
    return ("apgd-ce", *(("apgd-dlr",) if classes == 3 else ()), "fab-t", "square")


def autoattack_note(classes: int) -> str:
    """Say which attacks replace the standard ones with so many logits; empty where none does."""
    if classes >= 4:
        return ""
    return f"{classes} logits, so not the standard attacks: {', '.join(autoattack_parts(classes))}."


def autoattack_class() -> Any:
    """Import the class ``AutoAttack`` of its package."""
    try:
        return importlib.import_module("autoattack").AutoAttack
    except ModuleNotFoundError as error:
        if error.name != "autoattack":
            raise
        raise ImportError(
            "AutoAttack is not installed, and is not on PyPI: "
            "pip install git+https://github.com/fra31/auto-attack"
        ) from error

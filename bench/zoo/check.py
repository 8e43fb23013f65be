"""Make the row of a network: convert it, train it along both routes, fuse and strip it."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from bench.rows import Row
from bench.zoo.builders import BATCH, CLASSES, Network, sizes_of
from bench.zoo.table import METHODS
from entprop_fast import convert_dual_norm, create_method, strip_auxiliary
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.fusion import fuse_norms
from entprop_fast.layers.norm_kinds import kind_of
from entprop_fast.layers.recognition import looks_like_norm
from entprop_fast.ops import backend

K = 0.5  # of a batch so small the default chooses one row, too few for batch statistics
ON_REQUEST = "that is dual on request"  # what `kind_of` says of a global response norm
LARGEST = 1.0  # norm of the gradient: over a few values batch norms make one of millions
MORE_SIZES = 2  # that are tried where a step fails: of 1x1 activations a batch norm has too few


def check(network: Network) -> Row:
    """Return the row of a network at the smallest images with which all of it works.

    What fails is told in the row; only a network that no size suits raises.
    """
    began = time.perf_counter()
    row: Row = {}
    tried = 0
    for size, model in sizes_of(network):
        row = {"network": str(network), "family": network.family, "pixels": size}
        row |= _check_at(model, size)
        tried += 1
        if not any(row[method] for method in METHODS) or tried > MORE_SIZES:
            break
    if not row:
        raise ValueError(f"{network}: no size of images suits it")
    return row | {"seconds": time.perf_counter() - began}


def _check_at(model: nn.Module, size: int) -> Row:
    torch.manual_seed(0)
    _perturb(model)
    images = torch.rand(BATCH, 3, size, size)
    expected = _outputs(model, images)
    row: Row = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "norms": sum(map(looks_like_norm, model.modules())),
        **dict.fromkeys(("converted", "fused"), 0),
        **dict.fromkeys(METHODS, ""),
        "left": {},
        "also": [],
        "difference": None,
        "stripped": None,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            convert_dual_norm(model)
    except ValueError as error:
        left = left_over(model)
        return row | {"left": left, "refused": str(error).splitlines()[0]}
    row["left"] = left_over(model)
    row["also"] = _convert_on_request(model)
    row |= {
        "converted": sum(isinstance(module, DualNorm) for module in model.modules()),
        "difference": _difference(_outputs(model, images), expected),
        "entprop": _step(model, "entprop", images),
    }
    before = _outputs(model, images, reference=False)
    patterns = Counter(one.pattern for one in fuse_norms(model) if one.pattern)
    after = _outputs(model, images, reference=False)
    row |= {
        "fused": sum(patterns.values()),
        "patterns": dict(patterns),
        "fused_difference": _difference(after, before) / max(float(before.abs().max()), 1e-30),
        "entprop_pipelined": _step(model, "entprop_pipelined", images),
    }
    trained = _outputs(model, images)
    row["stripped"] = _difference(_outputs(strip_auxiliary(model), images), trained)
    return row


def left_over(model: nn.Module) -> dict[str, str]:
    """Return, by class, how many norms have no auxiliary half and why."""
    inside = {
        id(m) for dual in model.modules() if isinstance(dual, DualNorm) for m in dual.modules()
    }
    counts: Counter[tuple[str, str]] = Counter()
    for module in model.modules():
        if looks_like_norm(module) and id(module) not in inside:
            counts[type(module).__name__, kind_of(module)[1]] += 1
    return {name: f"{count} {why}".strip() for (name, why), count in counts.items()}


def _convert_on_request(model: nn.Module) -> list[str]:
    """Convert those of the norms left that `also` is meant for; return their classes."""
    names = {name for name, why in left_over(model).items() if why.endswith(ON_REQUEST)}
    classes = {type(module) for module in model.modules() if type(module).__name__ in names}
    if classes:
        convert_dual_norm(model, also=classes)
    return sorted(names)


def _perturb(model: nn.Module) -> None:
    """Move what starts at 0 and 1 a little: among equal values a mistake would not show."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim <= 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.mul_(1 + 0.2 * torch.rand_like(buffer))


def _step(model: nn.Module, method: str, images: Tensor) -> str:
    """Take one step, of the pipelined method two: the second has rows waiting. Return an error."""
    labels = torch.arange(len(images)) % CLASSES
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    try:
        step = create_method(method, model.train(), optimizer, k=K, max_grad_norm=LARGEST)
        for _ in range(2 if method == "entprop_pipelined" else 1):
            result = step(images, labels)
            if not (result.loss.isfinite() and result.aux_loss.isfinite()):
                return f"loss {float(result.loss)}, auxiliary loss {float(result.aux_loss)}"
        moved = [p for p in model.parameters() if p.grad is not None and bool(p.grad.any())]
        return "" if moved else "no gradient"
    except Exception as error:  # a row of the table
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
    finally:
        for parameter in model.parameters():
            parameter.grad = None


@torch.no_grad()
def _outputs(model: nn.Module, images: Tensor, reference: bool = True) -> Tensor:
    """Return eval-mode outputs, by plain PyTorch unless told otherwise: its bits are compared."""
    model.eval()
    with _plain_pytorch() if reference else contextlib.nullcontext():
        outputs: Tensor = model(images)
    return outputs.clone()


@contextlib.contextmanager
def _plain_pytorch() -> Iterator[None]:
    devices: Any = backend.KERNEL_DEVICES
    before = set(devices)
    devices.clear()
    try:
        yield
    finally:
        devices.update(before)


def _difference(found: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference; NaN where one of them is not finite."""
    return float((found - expected).abs().max())

"""Tell a run's network and images from another's, where a checkpoint is to be continued."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import Tensor, nn

from entprop_fast.lab.data import Loader
from entprop_fast.lab.data.loader import Batch

# By the name of what is compared: texts, numbers or lists of numbers, which a checkpoint holds.
Identity = dict[str, Any]

_FIRST_IMAGE = "the first training image"
_PIXELS = 16  # of the first image that are kept
_TOLERANCE = 0.01  # of a pixel: another device normalises to other last bits


def identity_of(model: nn.Module, loader: Loader) -> Identity:
    """Return what a run must be continued with: the network's numbers, and how many images."""
    values = chain(model.parameters(), model.buffers())
    dtypes = {str(one.dtype).removeprefix("torch.") for one in values if one.is_floating_point()}
    named = model.named_parameters()
    return {
        "the network's dtype": ", ".join(sorted(dtypes)),
        "frozen parameters": ", ".join(n for n, one in named if not one.requires_grad) or "none",
        "training images": loader.size,
        "batches of an epoch": len(loader),
    }


def given_identity(
    first: Batch,
    again: Batch | None,
    normalization: object,
    input_range: object,
    criterion: object,
) -> Identity:
    """Return what a caller's images and loss add to `identity_of`.

    Args:
        first: the first training image and its label.
        again: the same, read once more; where it is another, the images do not repeat, and none is
            compared. None: not read.
        normalization: of the images.
        input_range: of the images.
        criterion: a module, a function, or None.
    """
    told: Identity = {
        "normalization": repr(normalization),
        "input_range": repr(input_range),
        "criterion": _text_of(criterion),
    }
    pixels = _pixels(*first)
    if again is None or _alike(pixels, _pixels(*again)):
        told[_FIRST_IMAGE] = pixels
    return told


def differences(now: Identity, then: object) -> list[str]:
    """Name what differs; an earlier version's checkpoint lacks some, which is not compared."""
    if not isinstance(then, Mapping):
        return []
    found = []
    for name, value in now.items():
        if name not in then or _alike(value, then[name]):
            continue
        if isinstance(value, list):
            found.append(f"{name} is another one")
        else:
            found.append(f"{name}: {value}, was {then[name]!r:.200}")
    return found


def network_differences(model: nn.Module, saved: object) -> list[str]:
    """Name the first tensor that only one of a network and a checkpoint has, or of another shape.

    Args:
        model: the network.
        saved: a network's state; of any other form, nothing is found here.
    """
    if not isinstance(saved, Mapping):
        return []
    here, there = _shapes(model.state_dict()), _shapes(saved)
    for name in (*here, *there):
        if here.get(name) != there.get(name):
            now, then = (one.get(name, "none") for one in (here, there))
            return [f"another network's, or another version's: {name} has shape {now}, was {then}"]
    return []


def _shapes(state: Mapping[Any, Any]) -> dict[Any, Any]:
    return {name: list(one.shape) for name, one in state.items() if isinstance(one, Tensor)}


def _text_of(criterion: object) -> str:
    """Name a loss and its plain settings; none of it is an address in memory."""
    if criterion is None:
        return "none"
    if not isinstance(criterion, nn.Module):
        return str(getattr(criterion, "__qualname__", type(criterion).__qualname__))
    plain = {
        name: value
        for name, value in sorted(vars(criterion).items())
        if isinstance(value, bool | int | float | str)
        and not name.startswith("_")
        and name != "training"
    }
    settings = ", ".join(f"{name}={value!r}" for name, value in plain.items())
    return f"{type(criterion).__qualname__}({settings})"


def _pixels(images: Tensor, labels: Tensor) -> list[float]:
    """Return the label of the first image and some of its pixels, all over it."""
    flat = images[0].detach().reshape(-1)
    step = max(1, flat.numel() // _PIXELS)
    return [float(labels[0]), *flat[::step].cpu().double().tolist()]


def _alike(now: object, then: object) -> bool:
    if not isinstance(now, list):
        return type(now) is type(then) and now == then
    if not isinstance(then, list) or len(now) != len(then):
        return False
    pairs = zip(now, then, strict=True)
    return all(
        isinstance(other, float) and abs(one - other) <= _TOLERANCE * max(1.0, abs(one))
        for one, other in pairs
    )

"""Build a network of timm or torchvision for the smallest images that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from entprop_fast import models
from entprop_fast.optional import import_torchvision

BATCH, CLASSES = 4, 5
SIZES = (32, 64, 96, 128, 160, 192, 224, 256)
FEW_SIZES = (32, 56, 64, 128)  # where each has to be built anew; patches are of 14 pixels, too
# What a network says to images too small for it.
_TOO_SMALL = (
    *(AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError),
    ZeroDivisionError,
)


@dataclass(frozen=True)
class Network:
    """Name one network.

    Attributes:
        library: ``timm`` or ``torchvision``.
        family: the module of the library that defines it.
        name: in the library.
    """

    library: str
    family: str
    name: str

    def __str__(self) -> str:
        return f"{self.library}:{self.name}"


def sizes_of(network: Network) -> Iterator[tuple[int, nn.Module]]:
    """Yield sizes of square images that the network takes, each with a fresh network, from below.

    Networks for one size are built for it where they can be; the last size is their own.
    """
    own = _own_size(network)
    if _takes_size(network):
        sizes = sorted({size for size in FEW_SIZES if size < own} | {own})
        for size in sizes:
            model = _built(network, size)
            if model is not None and _fits(model, size):
                yield size, model
        return
    model = _built(network, None)
    for size in sorted({size for size in SIZES if size < own} | {own}):
        if model is not None and _fits(model, size):
            yield size, model
            model = _built(network, None)  # what was yielded is converted


def _own_size(network: Network) -> int:
    if network.library == "torchvision":
        return SIZES[-1]
    import_torchvision("models", purpose="timm")
    import timm

    known = timm.get_pretrained_cfg(network.name, allow_unregistered=False)
    return SIZES[-1] if known is None else int(known.input_size[-1])


def _takes_size(network: Network) -> bool:
    """Return whether a network is built for images of one size, which its builder can be told."""
    if network.library == "torchvision":
        return network.name.startswith("vit_")
    try:
        with torch.device("meta"):
            _build(network, FEW_SIZES[0])
    except ValueError as error:
        return "'img_size'" not in str(error)
    except NotImplementedError:  # it computes with its weights while it is built
        return True
    return True


def _built(network: Network, size: int | None) -> nn.Module | None:
    try:
        return _build(network, size).eval()
    except _TOO_SMALL:
        return None


def _fits(model: nn.Module, size: int) -> bool:
    try:
        with torch.no_grad():
            return bool(model(torch.rand(2, 3, size, size)).shape == (2, CLASSES))
    except _TOO_SMALL:
        return False


def _build(network: Network, size: int | None) -> nn.Module:
    name = network.name
    if network.library == "timm":
        setting = "" if size is None else f",img_size={size}"
        return models.create(f"timm:{name}{setting}", num_classes=CLASSES)
    if size is None:
        return models.create(f"torchvision:{name}", num_classes=CLASSES)
    torchvision = import_torchvision("models", purpose=name)
    model: nn.Module = torchvision.get_model(
        name, weights=None, num_classes=CLASSES, image_size=size
    )
    return model

"""Build a network of timm or torchvision for the smallest images that it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from entprop_fast import models
from entprop_fast.optional import import_torchvision

BATCH, CLASSES = 4, 5
SIZES = (32, 64, 96, 128, 160, 192, 224, 256)


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
    build = _timm if network.library == "timm" else _torchvision
    sizes, flexible = SIZES, True
    if network.library == "timm":
        flexible, own = _size_options(network.name)
        sizes = (*(size for size in SIZES if size < own), own)
    for size in sizes:
        try:
            model = build(network.name, size, flexible)
            with torch.no_grad():
                fits = model.eval()(torch.rand(2, 3, size, size)).shape == (2, CLASSES)
        except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            continue  # what a network says to images too small for it
        if fits:
            yield size, model


def _size_options(name: str) -> tuple[bool, int]:
    """Return whether a timm network is built for one size of images, and its own."""
    import_torchvision("models", purpose="timm")
    import timm

    default = timm.get_pretrained_cfg(name, allow_unregistered=False)
    own = default.input_size[-1] if default is not None else SIZES[-1]
    try:
        with torch.device("meta"):
            timm.create_model(name, img_size=own)
    except TypeError as error:
        return "img_size" not in str(error), own
    except Exception:  # of no matter here: it is built again
        return True, own
    return True, own


def _timm(name: str, size: int, flexible: bool) -> nn.Module:
    setting = f",img_size={size}" if flexible else ""
    return models.create(f"timm:{name}{setting}", num_classes=CLASSES)


def _torchvision(name: str, size: int, flexible: bool) -> nn.Module:
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options = {"image_size": size}
    elif name.startswith("maxvit"):
        options = {"input_size": (size, size)}
    if not options:
        return models.create(f"torchvision:{name}", num_classes=CLASSES)
    torchvision = import_torchvision("models", purpose=name)
    model: nn.Module = torchvision.get_model(name, weights=None, num_classes=CLASSES, **options)
    return model

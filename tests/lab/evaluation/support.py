"""Tiny sets in the official layouts, and networks whose answers can be worked out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS, EXTRA_KINDS
from entprop_fast.lab.corruptions.write_sets import write_arrays, write_folders
from entprop_fast.lab.data import FileList, ImageData, ImageFiles

SIDE = 8
WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")


class Brightness(nn.Module):
    """Class by the mean brightness, in steps of 1 / classes; `sharpness` makes it confident."""

    def __init__(self, classes: int, sharpness: float = 20.0) -> None:
        super().__init__()
        self.centres = nn.Parameter((torch.arange(classes) + 0.5) / classes)
        self.sharpness = sharpness
        self.modes: set[bool] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.modes.add(self.training)
        mean = x.mean(dim=(1, 2, 3), keepdim=False)
        return -self.sharpness * (mean[:, None] - self.centres).abs()


class Around(Brightness):
    """With something done to the images before, and to the logits after."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Any] = lambda logits: logits,
    ) -> None:
        super().__init__(4)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Any:
        return self.after(super().forward(self.before(x)))


def tiny_cifar(count: int = 20, classes: int = 4, official: str | None = "cifar10-c") -> ImageData:
    """Grey-ish 8-pixel images as bytes, labelled by their brightness, one in five wrongly."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(count) % classes
    level = (labels + 0.5) / classes * 255
    noise = 40 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    images = (level.view(-1, 1, 1, 1) + noise).clamp(0, 255).to(torch.uint8)
    shown = torch.where(torch.arange(count) % 5 == 0, (labels + 1) % classes, labels)
    names = tuple(f"class{i}" for i in range(classes))
    return ImageData(
        "tiny",
        images,
        shown,
        images,
        shown,
        classes,
        class_names=names,
        official_corruptions=official,
    )


def write_cifar_c(folder: Path, data: ImageData, extra: bool = False) -> Path:
    """``CIFAR-10-C``: kind k at severity s is the clean images, darker by 3 k + 10 s levels."""
    root = folder / "CIFAR-10-C"
    root.mkdir(parents=True)
    for number, kind in enumerate((*COMMON_KINDS, *(EXTRA_KINDS if extra else ()))):
        parts = [darker(data.test_images, number, severity) for severity in SEVERITIES]
        array = torch.cat(parts).permute(0, 2, 3, 1).contiguous().numpy()
        np.save(root / f"{kind}.npy", array)
    labels = np.tile(data.test_labels.numpy(), len(SEVERITIES)).astype(np.uint8)
    np.save(root / "labels.npy", labels)
    return root


def darker(images: Tensor, number: int, severity: int) -> Tensor:
    """What the tests' corruption does."""
    return (images.int() - 3 * number - 10 * severity).clamp(0, 255).to(torch.uint8)


def write_classes(
    root: Path, count: int = 3, wnids: tuple[str, ...] = WNIDS, side: int = SIDE
) -> None:
    """A folder a class; class i's images have brightness (i + 1/2) / classes."""
    for number, wnid in enumerate(wnids):
        (root / wnid).mkdir(parents=True)
        level = int((number + 0.5) / len(wnids) * 255)
        for i in range(count):
            picture = Image.new("RGB", (side, side), (level, level, level))
            picture.save(root / wnid / f"{i}.JPEG", quality=95)


def black(path: Path) -> None:
    """In place of one of these images: its brightness is the first class's."""
    Image.new("RGB", (SIDE, SIDE)).save(path)


def tiny_imagenet(folder: Path) -> ImageFiles:
    """Image files of four of ImageNet's classes."""
    write_classes(folder / "val")
    files = [f"{wnid}/{i}.JPEG" for wnid in WNIDS for i in range(3)]
    labels = [number for number in range(len(WNIDS)) for _ in range(3)]
    test = FileList(folder / "val", files, labels)
    return ImageFiles("imagenet", test, test, WNIDS, SIDE, official_corruptions="imagenet-c")


def by_another_generator(root: Path, generator: int) -> None:
    """Change the marker of a set that was written here, as if another version had written it."""
    path = root / "entprop_fast.json"
    marker = json.loads(path.read_text()) | {"generator": generator}
    if generator == 1:
        del marker["generator"]
    path.write_text(json.dumps(marker))


def arrays(data: ImageData, root: Path, **changed: Any) -> None:
    """Write a generated set as CIFAR-C."""
    settings: dict[str, Any] = {"scale": "cifar-c", "seed": 0, "device": torch.device("cpu")}
    settings |= changed
    write_arrays(data, root, settings.pop("kinds", COMMON_KINDS), **settings)


def folders(data: ImageFiles, root: Path, **changed: Any) -> None:
    """Write a generated set as ImageNet-C."""
    settings: dict[str, Any] = {"scale": "imagenet-c", "seed": 0, "device": torch.device("cpu")}
    settings |= changed
    write_folders(data, root, settings.pop("kinds", COMMON_KINDS), **settings)


# A data set, and what further sets of its classes are made of.
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
DATA = tiny_cifar(count=20)
LABELS = np.arange(12) % 4
IMAGES: Bytes = np.random.default_rng(2).integers(0, 256, (12, SIDE, SIDE, 3), np.uint8)

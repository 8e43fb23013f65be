"""Take an image and its label, or a batch of both, out of what a data set or a loader gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

# By what names dictionaries hold them: Hugging Face's processors and data sets, and plain ones.
IMAGE_NAMES = ("pixel_values", "image", "images", "img")
LABEL_NAMES = ("labels", "label")

WANTED = (
    "(images, labels), or a dictionary with one of "
    f"{', '.join(IMAGE_NAMES)} and one of {', '.join(LABEL_NAMES)}"
)


def pair_of(item: object) -> tuple[Any, Any]:
    """Return images and labels of a tuple of two, or of a dictionary; its other values stay out.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(item, Mapping):
        images = [name for name in IMAGE_NAMES if name in item]
        labels = [name for name in LABEL_NAMES if name in item]
        if len(images) == len(labels) == 1:
            return item[images[0]], item[labels[0]]
        raise TypeError(f"data gives a dictionary of {', '.join(map(str, item))}; {WANTED} wanted")
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    parts = f" of {len(item)}" if isinstance(item, tuple | list) else ""
    raise TypeError(f"data gives a {type(item).__name__}{parts}; {WANTED} wanted")


class Pairs(Dataset[tuple[Any, Any]]):
    """A data set whose items are pairs, whatever those of `dataset` are.

    Args:
        dataset: of a known length; its items are what `pair_of` takes.
        check: refuses an image or a label; labels that it takes are given as integers.
    """

    def __init__(
        self, dataset: Dataset[Any], check: Callable[[Any, Any], None] | None = None
    ) -> None:
        self.dataset, self.check = dataset, check

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, label = pair_of(self.dataset[index])
        if self.check is None:
            return image, label
        self.check(image, label)
        return image, int(label)


def batch_of(item: object) -> tuple[Tensor, Tensor]:
    """Return images and labels of a batch that a loader gave: tensors.

    Raises:
        TypeError: they are none.
    """
    images, labels = pair_of(item)
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        kinds = f"{type(images).__name__} and {type(labels).__name__}"
        raise TypeError(f"data gives {kinds}; two tensors, images and labels, wanted")
    return images, labels

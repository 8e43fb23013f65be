"""Take test images as callers have them: tensors, a torch data set, a loader; look at them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
)

from entprop_fast.lab.data import ImageData, ImageFiles, ImageSet, to_float
from entprop_fast.lab.data.given_loader import reordered
from entprop_fast.lab.data.pairs import Pairs, batch_of
from entprop_fast.lab.data.prefetch import read_batches
from entprop_fast.methods.batch_checks import RANGE_TOLERANCE
from entprop_fast.methods.image_units import ImageUnits

Batches = Iterator[tuple[Tensor, Tensor]]
Range = tuple[float, float]

_NAME = "images"
_BRIGHT = 16  # above any normalised image
_WANTED = (
    "two tensors, (images [N, C, H, W], labels [N]), a DataLoader, a torch Dataset, or what "
    "entprop_fast.data.load gives,"
)


def images_of(
    data: object,
    input_range: Range,
    *,
    normalized: ImageUnits | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
) -> ImageSet:
    """Make a test set of images in [0, 1] of what `evaluate_model` was given.

    Tensors are checked whole; a loader or a data set is read once for that, and again in each pass
    that measures: its images are never held in memory together. Floating images that come
    `normalized` are first brought back.
    """
    if isinstance(data, BatchedImages):
        return cast(ImageSet, data)
    if isinstance(data, ImageFiles):
        return data
    if isinstance(data, ImageData):
        _check_values(data.test_images, (0.0, 1.0), "test images")
        check_brightest(data.test_images.dtype, highest_byte(data.test_images), "test images")
        return data
    match data:
        case (Tensor() as images, Tensor() as labels):
            return _of_tensors(_before(normalized, images), labels, input_range)
        case DataLoader():
            if batch_size is not None or workers is not None:
                raise ValueError("batch_size and workers: a DataLoader has its own")
            return _of_batches(_pairs(_in_one_order(data), normalized), input_range)
        case Dataset() if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
            whole = type(data) is TensorDataset and len(data.tensors) == 2  # not row by row
            read = _of_rows(data if whole else Pairs(data), batch_size, workers)
            return _of_batches(_pairs(read, normalized), input_range)
    inside = f" of {', '.join(type(one).__name__ for one in data)}" if type(data) is tuple else ""
    raise TypeError(f"data is a {type(data).__name__}{inside}: {_WANTED} wanted")


@dataclass(frozen=True)
class BatchedImages:
    """Test images that come in batches, the same ones in every pass.

    What the evaluation reads of `ImageData` and `ImageFiles` is here, too.
    """

    read: Callable[[], Batches]
    input_range: Range
    starts: tuple[int, ...]  # the first image of each batch
    test_labels: Tensor
    num_classes: int
    image_shape: tuple[int, int, int]
    name: str = _NAME
    class_names: tuple[str, ...] = ()
    official_corruptions: str | None = None

    @property
    def num_test(self) -> int:
        """Images of a pass."""
        return len(self.test_labels)

    def test_starts(self, batch_size: int) -> Sequence[int]:
        """Return the number of the first image of each of the `test_batches`."""
        return self.starts

    def test_batches(
        self, batch_size: int, *, workers: int | None = None, starts: Sequence[int] | None = None
    ) -> Batches:
        """Yield float32 images in [0, 1] and labels, on the CPU; the batches are the source's own.

        All of them are read, also where only those that begin at `starts` are asked for.

        Raises:
            ValueError: what comes is not what came in the first pass, or out of range.
        """
        first = 0
        for images, labels in self.read():
            made, wanted = _batch(images, labels, self.input_range, first, self.image_shape)
            if not torch.equal(wanted, self.test_labels[first : first + len(wanted)]):
                raise ValueError(
                    f"data gives other labels for images {first} ... {first + len(wanted) - 1} "
                    "than in its first pass: every pass must be in the same order (shuffle=False)"
                )
            if starts is None or first in starts:
                yield made, wanted
            first += len(wanted)
        if first != self.num_test:
            raise ValueError(f"data gave {first} images, and {self.num_test} in its first pass")


def _pairs(
    read: Callable[[], Iterator[Any]], normalized: ImageUnits | None
) -> Callable[[], Batches]:
    """Make pairs of tensors of what comes, the images before their normalisation."""

    def pairs() -> Batches:
        for images, labels in map(batch_of, read()):
            yield _before(normalized, images), labels

    return pairs


def _before(normalized: ImageUnits | None, images: Tensor) -> Tensor:
    """Return images ``[B, C, H, W]`` before they were normalised; bytes never were."""
    if normalized is None or not images.is_floating_point() or images.ndim != 4:
        return images
    if normalized.channels not in (1, images.shape[1]):
        raise ValueError(
            f"normalization has {normalized.channels} channels, images have {images.shape[1]}"
        )
    return normalized.to_image_units(images.movedim(1, -1)).movedim(-1, 1)


def _of_batches(read: Callable[[], Batches], input_range: Range) -> ImageSet:
    """Pass for the first time: look at every image before anything is computed."""
    labels, shape, starts = [], None, []
    seen, highest, dtype = 0, 0.0, torch.uint8
    for images, batch_labels in read():
        made, wanted = _batch(images, batch_labels, input_range, seen, shape)
        shape = (made.shape[1], made.shape[2], made.shape[3])
        highest, dtype = max(highest, highest_byte(images)), images.dtype
        labels.append(wanted)
        starts.append(seen)
        seen += len(wanted)
    if shape is None:
        raise ValueError("data holds no test image; at least one is needed")
    check_brightest(dtype, highest, _NAME)
    all_labels = torch.cat(labels)
    classes = int(all_labels.max()) + 1
    return cast(
        ImageSet, BatchedImages(read, input_range, tuple(starts), all_labels, classes, shape)
    )


def _batch(
    images: Tensor,
    labels: Tensor,
    input_range: Range,
    first: int,
    shape: tuple[int, int, int] | None,
) -> tuple[Tensor, Tensor]:
    _check_shapes(images, labels)
    if shape is not None and images.shape[1:] != shape:
        raise ValueError(
            f"images {first} ... have shape {list(images.shape[1:])}, those before {list(shape)}"
        )
    images, labels = images.detach().cpu(), labels.cpu()
    _check_values(images, input_range, f"images {first} ... {first + len(images) - 1}")
    return _in_unit_range(images, input_range), labels.long()


def _of_tensors(images: Tensor, labels: Tensor, input_range: Range) -> ImageData:
    _check_shapes(images, labels)
    if not len(images):
        raise ValueError(f"images have shape {tuple(images.shape)}; [N, C, H, W] wanted, N above 0")
    images, labels = images.detach().cpu(), labels.cpu().long()
    _check_values(images, input_range, _NAME)
    check_brightest(images.dtype, highest_byte(images), _NAME)
    if input_range != (0.0, 1.0):
        images = _in_unit_range(images, input_range)
    classes = int(labels.max()) + 1
    return ImageData(_NAME, images[:0], labels[:0], images, labels, classes)


def _check_shapes(images: Tensor, labels: Tensor) -> None:
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"images have shape {tuple(images.shape)}; [N, C, H, W] wanted")
    wrong = f"{labels.dtype} {tuple(labels.shape)}"
    integers = labels.ndim == 1 and labels.dtype != torch.bool and not labels.is_floating_point()
    if integers and len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    if integers and len(labels) and (lowest := int(labels.min())) < 0:
        integers, wrong = False, f"{wrong}, the lowest {lowest}"
    if not integers:
        raise ValueError(f"labels are {wrong}; int64 [N] of 0 or more wanted")


def _check_values(images: Tensor, input_range: Range, what: str) -> None:
    if not images.is_floating_point():
        if images.dtype != torch.uint8:
            raise ValueError(f"{what} are {images.dtype}; uint8 or a floating dtype is needed")
        return
    if not len(images):
        return
    lowest, highest = (float(one) for one in images.aminmax())
    low, high = input_range
    spare = RANGE_TOLERANCE * (high - low)
    if low - spare <= lowest and highest <= high + spare:  # False for NaN
        return
    if not (abs(lowest) < torch.inf and abs(highest) < torch.inf):
        raise ValueError(f"{what} hold values that are not finite")
    raise ValueError(
        f"{what} hold values from {lowest:.4g} to {highest:.4g}, outside of input_range = "
        f"{input_range}: {_way_back(lowest, highest)}"
    )


def _way_back(lowest: float, highest: float) -> str:
    """Say how images get into their range."""
    if lowest >= 0 and _BRIGHT < highest <= 255:
        return "divide them by 255, or give uint8; input_range=(0, 255) if the network takes them"
    return (
        "give images before their normalisation (their transform without its Normalize), and "
        "normalization=(mean, std) of the network, which is done here"
    )


def highest_byte(images: Tensor) -> float:
    """Return the highest value of bytes; 0 of others."""
    return float(images.amax()) if images.dtype == torch.uint8 and images.numel() else 0.0


def check_brightest(dtype: torch.dtype, highest: float, what: str) -> None:
    """Refuse bytes that were cut off from [0, 1]: all but black, they would be scored as such."""
    if dtype == torch.uint8 and highest == 1:
        raise ValueError(
            f"{what} are uint8 whose highest value is 1: bytes are 0 ... 255; give floating images "
            "where they are in [0, 1] (images.float()), or multiply masks by 255"
        )


def _in_unit_range(images: Tensor, input_range: Range) -> Tensor:
    if not images.is_floating_point():
        return to_float(images)
    low, high = input_range
    made = images.float()
    if input_range != (0.0, 1.0):
        made = (made - low) / (high - low)
    return made.clamp(0, 1)  # a rounding's width outside


def _of_rows(
    dataset: Dataset[Any], batch_size: int | None, workers: int | None
) -> Callable[[], Batches]:
    size = 100 if batch_size is None else batch_size
    if size < 1:
        raise ValueError(f"batch_size = {size} must be at least 1")
    count = len(dataset)  # type: ignore[arg-type]
    if not count:
        raise ValueError("data holds no test image; at least one is needed")
    rows = torch.arange(count).split(size)
    return lambda: read_batches(dataset, rows, workers=workers or 0, what="image")


def _in_one_order(loader: DataLoader[Any]) -> Callable[[], Batches]:
    """Bring the loader's batches into one order for all passes: a sampler draws once."""
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return lambda: iter(loader)
    batching: Any = loader.batch_sampler
    by_itself = batching is None or type(batching) is BatchSampler
    if by_itself and type(loader.sampler) is SequentialSampler:
        return lambda: iter(loader)
    fixed = (
        reordered(loader, items=list(loader.sampler))
        if batching is None
        else reordered(loader, list(batching))
    )
    return lambda: iter(fixed)

"""Take training and test images as callers have them: tensors, a data set, a loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, TensorDataset

from entprop_fast.augment import Chain
from entprop_fast.lab import job
from entprop_fast.lab.data import ImageData, ImageSet, Loader, create_loader
from entprop_fast.lab.data.given_loader import GivenLoader
from entprop_fast.lab.data.image_files import RESIZED_CROP
from entprop_fast.lab.data.pairs import Pairs
from entprop_fast.lab.data.readers import own_generators
from entprop_fast.lab.evaluation.given_images import check_brightest, highest_byte, images_of
from entprop_fast.lab.training.given_check import GivenCheck
from entprop_fast.methods.image_units import ImageUnits

Given = DataLoader[Any] | Dataset[Any] | tuple[Tensor, Tensor]

_WANTED = "a DataLoader, a torch Dataset with a length, or two tensors (images, labels)"
_SPLITS = "(train, test), or a dictionary of train, test and class_names,"


@dataclass(frozen=True)
class GivenImages:
    """Say of given images what a run needs to know of its data set.

    Attributes:
        name: of the data set.
        train: the loader of the training images, or what a loader can be made of.
        image_shape: ``(C, H, W)``.
        num_classes: labels are below.
        test: the test images, in [0, 1]; None: there are none.
        class_names: empty where they are not known.
    """

    name: str
    train: Loader | Pairs
    image_shape: tuple[int, int, int]
    num_classes: int
    test: ImageSet | None
    class_names: tuple[str, ...] = ()
    official_corruptions: str | None = None

    @property
    def num_train(self) -> int:
        """Training images of an epoch; of a stream, as many as the last one had."""
        return self.train.size if isinstance(self.train, Loader) else len(self.train)

    @property
    def num_test(self) -> int:
        """Test images."""
        return 0 if self.test is None else self.test.num_test

    def training(self, augment: str) -> Dataset[Any]:
        """Return the training images for `entprop_fast.data.create_loader`.

        Raises:
            ValueError: an ``augment`` that is made while images are read from files.
        """
        if isinstance(self.train, Loader):
            raise ValueError(f"{self.name} has a loader already")
        if augment == RESIZED_CROP:
            raise ValueError(
                f"augment {augment!r} is for images read from files by their names; {self.name!r} "
                "takes crop-flip and what may follow it"
            )
        return self.train

    def as_image_set(self) -> ImageSet:
        """Return it as what a `Trainer` calls its images."""
        return cast(ImageSet, self)


def loader_of(
    train: Given,
    check: GivenCheck,
    *,
    seed: int,
    batch_size: int,
    drop_last: bool,
    augment: Chain,
    kind: str,
    workers: int,
    device: torch.device,
    dtype: torch.dtype,
    normalization: tuple[Sequence[float], Sequence[float]] | None,
) -> Loader:
    """Make the run's loader of what was given.

    Args:
        train: what was given.
        check: looks at every batch or image, at tensors at once.
        seed: of order and augmentation.
        batch_size: rows of a batch; a `DataLoader` has its own, and its own `drop_last`.
        drop_last: leave out a last batch that is smaller.
        augment: of every batch; `check` looks at whether its images can be augmented.
        kind: the setting `loader`, for tensors.
        workers: processes that read a `Dataset`; 0: this one.
        device: where the batches are.
        dtype: of the images in them.
        normalization: (mean, std) of bytes, as the network takes them; floating images have been
            through it.

    Raises:
        ValueError, TypeError: what was given cannot be trained on.
    """
    options: dict[str, Any] = {"seed": seed, "device": device, "dtype": dtype}
    options |= {"normalize": normalization, "drop_last": drop_last, "augment": augment}
    here = job.current()
    if isinstance(train, DataLoader):  # each process of a job has its own
        return GivenLoader(train, check=check, of=here.rank, **options | {"drop_last": False})
    data, first = _read_first(train, check)
    if first.is_floating_point():
        options["normalize"] = None  # they have been through it
    return create_loader(kind, data, batch_size, workers=workers, **options | here.place)


def image_set_of(
    made: object, name: str, *, workers: int | None = None, normalized: ImageUnits | None = None
) -> ImageSet:
    """Make a data set of what a user's function gave.

    Args:
        made: ``(train, test)``, or a dictionary of both and, if wanted, ``class_names``; each is
            ``(images, labels)`` in tensors, or a `Dataset` of pairs. Images are uint8, or floating
            in [0, 1].
        name: of the data set.
        workers: processes that read test images of a `Dataset`; None: this one.
        normalized: what floating images have been through, the test images are brought back;
            None: nothing.

    Raises:
        ValueError, TypeError: it is something else.
    """
    names: tuple[str, ...] = ()
    if isinstance(made, Mapping):
        if unknown := [key for key in made if key not in ("train", "test", "class_names")]:
            raise TypeError(f"gave a dictionary with {unknown[0]!r}: {_SPLITS} wanted")
        names = _names(made.get("class_names"))
        made = (made.get("train"), made.get("test"))
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise TypeError(f"gave a {type(made).__name__}: {_SPLITS} wanted")
    train, test = made
    for part, given in (("train", train), ("test", test)):
        check_given(part, given, loaders=False)
    check = GivenCheck(normalized or ImageUnits((0.0, 1.0), None), values=True)
    data, image = _read_first(train, check)
    tested = images_of(test, (0.0, 1.0), normalized=normalized, workers=workers)
    check_same_shape(tuple(image.shape[1:]), tested.image_shape)
    names = names or classes_within(train)
    lowest = tested.num_classes
    if isinstance(data, tuple):
        lowest = max(lowest, int(data[1].max()) + 1)
    check.classes = len(names) or lowest
    if lowest > check.classes:
        raise ValueError(f"labels reach {lowest - 1}, and there are {check.classes} class_names")
    if isinstance(data, tuple) and isinstance(tested, ImageData):
        whole = (*data, tested.test_images, tested.test_labels)
        return ImageData(name, *whole, num_classes=check.classes, class_names=names)
    pairs = Pairs(TensorDataset(*data), check.of_one) if isinstance(data, tuple) else data
    shape = (image.shape[1], image.shape[2], image.shape[3])
    return GivenImages(name, pairs, shape, check.classes, tested, names).as_image_set()


def classes_within(given: object) -> tuple[str, ...]:
    """Return the names that a data set has of its classes, as torchvision's do, or none.

    What wraps a data set, a loader or a subset, say, has it as ``.dataset`` or in ``.datasets``.
    """
    held: Any = given
    while not hasattr(held, "classes"):
        if hasattr(held, "dataset"):
            held = held.dataset
        elif isinstance(held, ConcatDataset):
            held = held.datasets[0]
        else:
            return ()
    names: Any = held.classes
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def check_same_shape(train: Sequence[int], test: Sequence[int]) -> None:
    """Check that test images have the shape ``(C, H, W)`` of the training images.

    Raises:
        ValueError: they have another.
    """
    if tuple(train) != tuple(test):
        raise ValueError(f"test images have shape {list(test)}, training images {list(train)}")


def _names(given: object) -> tuple[str, ...]:
    """Return the names of the classes; a text is none, though it could be read as letters."""
    if isinstance(given, str):
        raise TypeError(f"class_names is {given!r}: a list of a text for each class wanted")
    return tuple(map(str, given or ()))  # type: ignore[call-overload]


def _read_first(
    train: Dataset[Any] | tuple[Tensor, Tensor], check: GivenCheck
) -> tuple[Pairs | tuple[Tensor, Tensor], Tensor]:
    """Return what a loader can be made of, and the first image in a batch of one."""
    if type(train) is TensorDataset and len(train.tensors) == 2:
        train = train.tensors[0], train.tensors[1]  # batches at once, not row by row
    if isinstance(train, tuple):
        images, labels = train
        check(images, labels)
        check_brightest(images.dtype, highest_byte(images), "images")
        return (images.detach(), labels.long()), images[:1]
    pairs = Pairs(train, check.of_one)
    if not len(pairs):
        raise ValueError("train holds no image; at least one is needed")
    with own_generators():
        return pairs, pairs[0][0][None]


def check_given(name: str, data: object, *, loaders: bool = True) -> None:
    """Check that somebody's data are of a kind that can be trained on, a `DataLoader` or not.

    Raises:
        TypeError: they are not; says what they are, under this name.
    """
    sized = hasattr(data, "__len__") and hasattr(data, "__getitem__")
    if (isinstance(data, DataLoader) and loaders) or (isinstance(data, Dataset) and sized):
        return
    two = isinstance(data, tuple) and len(data) == 2
    if two and all(isinstance(one, Tensor) for one in data):  # type: ignore[attr-defined]
        return
    parts = [type(one).__name__ for one in data] if isinstance(data, tuple) else []
    inside = f" of {', '.join(parts)}" if parts else ""
    wanted = _WANTED if loaders else _WANTED.removeprefix("a DataLoader, ")
    raise TypeError(f"{name} is a {type(data).__name__}{inside}: {wanted} wanted")

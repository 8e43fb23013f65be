"""Open further test sets that are folders of image files, in the layouts of ImageNet's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from entprop_fast.lab.data.class_folders import image_batches
from entprop_fast.lab.data.datasets import ImageSet
from entprop_fast.lab.data.image_files import FileList
from entprop_fast.lab.data.natural_sets import NaturalSet
from entprop_fast.lab.data.stray_files import LeftOut, class_folders_in, image_paths
from entprop_fast.lab.data.verify import digest_of

_SPLITS = ("test", "val")  # within a data set, what is evaluated
_SEVERITIES = frozenset("12345")
_GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow's L


def folder_set(
    name: str, root: Path, data: ImageSet, batch_size: int, workers: int | None
) -> NaturalSet:
    """Open a folder of class folders, or of kinds and severities of these.

    A class folder is called as the class, or, where all of them are numbers and the classes are
    not, by the class's number: ImageNet-v2's 10 is the eleventh class.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a folder is none of the classes; no image is there.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"shift={name}={root}: there is no such folder")
    classes = [str(one) for one in data.class_names or range(data.num_classes)]
    split = next((one for one in _SPLITS if (root / one).is_dir() and one not in classes), "")
    numbers = {one: number for number, one in enumerate(classes)}
    files: list[str] = []
    labels: list[int] = []
    left_out = LeftOut()
    places = list(_places(root / split, numbers))
    for place in places:
        below = (root / split / place).relative_to(root)
        for folder, label in _class_folders(
            root / below, numbers, name, data.name, left_out
        ).items():
            images = image_paths(root / below / folder, left_out, str(below / folder))
            files += [str(below / folder / one) for one in images]
            labels += [label] * len(images)
    if not files:
        raise ValueError(f"shift={name}={root} holds no image in a class folder")
    listed = FileList(root, files, labels)
    channels, size, _ = data.image_shape

    def batches(starts: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for images, wanted in image_batches(listed, size, batch_size, workers, starts):
            yield (_grey(images) if channels == 1 else images), wanted

    kinds = {place.partition("/")[0] for place in places} - {"."}
    seen = len(set(labels))
    source = f"{root}, {len(kinds)} kinds" if kinds else str(root)
    if seen < data.num_classes:
        source += f", {seen} of the {data.num_classes} classes"
    left = left_out.lines()
    return NaturalSet(name, len(listed), None, batches, lambda: digest_of(listed), source, left)


def _places(root: Path, numbers: Mapping[str, int]) -> Iterator[str]:
    """Yield the folders that class folders lie in: itself, or each kind's severities."""
    kinds = class_folders_in(root, LeftOut(), root.name)
    of_kinds = {
        kind: sorted(one.name for one in (root / kind).iterdir() if one.is_dir())
        for kind in kinds
        if kind not in numbers and not kind.isdecimal()
    }
    # Where classes lie beside kinds, they are all looked up as classes, and the kinds are refused.
    if (
        len(of_kinds) < len(kinds)
        or not kinds
        or not all(set(found) <= _SEVERITIES and found for found in of_kinds.values())
    ):
        yield "."
        return
    for kind, severities in of_kinds.items():
        yield from (f"{kind}/{severity}" for severity in severities)


def _class_folders(
    root: Path, numbers: Mapping[str, int], name: str, dataset: str, left_out: LeftOut
) -> dict[str, int]:
    """Return the class folders in a folder, and their classes."""
    folders = class_folders_in(root, left_out, root.name)
    foreign = [one for one in folders if one not in numbers]
    by_number = bool(foreign) and all(one.isdecimal() for one in folders)
    if by_number:
        found = {one: int(one) for one in folders}
        foreign = [one for one, number in found.items() if number >= len(numbers)]
    else:
        found = {one: numbers[one] for one in folders if one in numbers}
    if by_number and len(set(found.values())) < len(found):
        raise ValueError(f"shift={name}: {root} has two folders of one number: {', '.join(found)}")
    if foreign:
        raise ValueError(
            f"shift={name}: {root / foreign[0]} is none of the {len(numbers)} classes of {dataset} "
            f"({', '.join(list(numbers)[:3])}, ...)"
        )
    return found


def _grey(images: Tensor) -> Tensor:
    """Return RGB images ``[B, 3, H, W]`` in one channel."""
    weights = images.new_tensor(_GREY).view(3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)

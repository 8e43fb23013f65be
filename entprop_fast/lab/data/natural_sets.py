"""Open the natural test sets beside ImageNet's own: ImageNet-A, ImageNet-R, Stylized-ImageNet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from entprop_fast.lab.data.class_folders import class_folders, image_batches
from entprop_fast.lab.data.stray_files import LeftOut
from entprop_fast.lab.data.verify import digest_of

# ImageNet-A and -R have 200 of the 1000 classes each: their numbers in the order of the WordNet
# identifiers, from the evaluation scripts of github.com/hendrycks/natural-adv-examples and
# github.com/hendrycks/imagenet-r.
# fmt: off
IMAGENET_A: tuple[int, ...] = (
    6, 11, 13, 15, 17, 22, 23, 27, 30, 37, 39, 42, 47, 50, 57, 70, 71, 76, 79, 89, 90, 94, 96,
    97, 99, 105, 107, 108, 110, 113, 124, 125, 130, 132, 143, 144, 150, 151, 207, 234, 235, 254,
    277, 283, 287, 291, 295, 298, 301, 306, 307, 308, 309, 310, 311, 313, 314, 315, 317, 319,
    323, 324, 326, 327, 330, 334, 335, 336, 347, 361, 363, 372, 378, 386, 397, 400, 401, 402,
    404, 407, 411, 416, 417, 420, 425, 428, 430, 437, 438, 445, 456, 457, 461, 462, 470, 472,
    483, 486, 488, 492, 496, 514, 516, 528, 530, 539, 542, 543, 549, 552, 557, 561, 562, 569,
    572, 573, 575, 579, 589, 606, 607, 609, 614, 626, 627, 640, 641, 642, 643, 658, 668, 677,
    682, 684, 687, 701, 704, 719, 736, 746, 749, 752, 758, 763, 765, 768, 773, 774, 776, 779,
    780, 786, 792, 797, 802, 803, 804, 813, 815, 820, 823, 831, 833, 835, 839, 845, 847, 850,
    859, 862, 870, 879, 880, 888, 890, 897, 900, 907, 913, 924, 932, 933, 934, 937, 943, 945,
    947, 951, 954, 956, 957, 959, 971, 972, 980, 981, 984, 986, 987, 988,
)
IMAGENET_R: tuple[int, ...] = (
    1, 2, 4, 6, 8, 9, 11, 13, 22, 23, 26, 29, 31, 39, 47, 63, 71, 76, 79, 84, 90, 94, 96, 97,
    99, 100, 105, 107, 113, 122, 125, 130, 132, 144, 145, 147, 148, 150, 151, 155, 160, 161,
    162, 163, 171, 172, 178, 187, 195, 199, 203, 207, 208, 219, 231, 232, 234, 235, 242, 245,
    247, 250, 251, 254, 259, 260, 263, 265, 267, 269, 276, 277, 281, 288, 289, 291, 292, 293,
    296, 299, 301, 308, 309, 310, 311, 314, 315, 319, 323, 327, 330, 334, 335, 337, 338, 340,
    341, 344, 347, 353, 355, 361, 362, 365, 366, 367, 368, 372, 388, 390, 393, 397, 401, 407,
    413, 414, 425, 428, 430, 435, 437, 441, 447, 448, 457, 462, 463, 469, 470, 471, 472, 476,
    483, 487, 515, 546, 555, 558, 570, 579, 583, 587, 593, 594, 596, 609, 613, 617, 621, 629,
    637, 657, 658, 701, 717, 724, 763, 768, 774, 776, 779, 780, 787, 805, 812, 815, 820, 824,
    833, 847, 852, 866, 875, 883, 889, 895, 907, 928, 931, 932, 933, 934, 936, 937, 943, 945,
    947, 948, 949, 951, 953, 954, 957, 963, 965, 967, 980, 981, 983, 988,
)
# fmt: on

_IMAGENET_CLASSES = 1000

# Title, the folder's usual names, and the classes among ImageNet's 1000 (None: all of them).
NATURAL: dict[str, tuple[str, tuple[str, ...], tuple[int, ...] | None]] = {
    "imagenet-a": ("ImageNet-A", ("imagenet-a", "ImageNet-A", "imagenet_a"), IMAGENET_A),
    "imagenet-r": ("ImageNet-R", ("imagenet-r", "ImageNet-R", "imagenet_r"), IMAGENET_R),
    "stylized": (
        "Stylized-ImageNet",
        ("stylized-imagenet/val", "Stylized-ImageNet/val", "imagenet-stylized/val"),
        None,
    ),
}


@dataclass(frozen=True)
class NaturalSet:
    """A further test set of the same classes or some of them."""

    title: str  # its name
    images: int  # how many
    classes: Tensor | None  # the network's outputs that are compared, int64; None: all
    # Images float32 ``[B, 3, S, S]`` in [0, 1] and labels among all the classes, of the batches
    # with these first images
    batches: Callable[[Sequence[int]], Iterator[tuple[Tensor, Tensor]]]
    # What differs once its images are others: of files their paths, sizes and times of change
    state: Callable[[], str]
    source: str = ""  # where it comes from; empty: the published one of that title
    left_out: tuple[str, ...] = ()  # what lies among its images and is none, a text for each kind

    @property
    def note(self) -> str:
        """Say what its row of a table has to tell besides the accuracy; empty: nothing."""
        compared = None if self.classes is None else f"among the set's {len(self.classes)} classes"
        left = f"left out: {'; '.join(self.left_out)}" if self.left_out else None
        return "; ".join(one for one in (compared, left) if one)


def open_natural(
    name: str,
    folder: Path,
    class_names: Sequence[str],
    size: int,
    batch_size: int,
    *,
    workers: int | None = None,
) -> NaturalSet:
    """Open ImageNet-A, -R or Stylized-ImageNet, from folders named by WordNet identifiers.

    -A and -R have 200 classes. A network of all 1000 is compared on these alone, as in their
    papers; one of other classes on those that the folders name. What is no image is named in the
    set's note.
    """
    title, usual, subset = NATURAL[name]
    root = next((folder / one for one in usual if (folder / one).is_dir()), None)
    if root is None:
        raise FileNotFoundError(f"{title} is not in {folder}: looked for {', '.join(usual)}")
    left_out = LeftOut()
    files = class_folders(root, class_names, left_out)
    classes = None
    if subset is not None:
        present = files.labels.unique()
        whole = len(class_names) == _IMAGENET_CLASSES
        classes = torch.tensor(subset) if whole else present
        foreign = sorted(set(present.tolist()) - set(classes.tolist()))
        if foreign:
            raise ValueError(f"{root / class_names[foreign[0]]} is no class of {title}")
    return NaturalSet(
        title,
        len(files),
        classes,
        lambda starts: image_batches(files, size, batch_size, workers, starts),
        lambda: digest_of(files),
        left_out=left_out.lines(),
    )

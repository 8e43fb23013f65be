"""Load Fashion-MNIST from the four files of its authors, or as Debian's package has them."""

from __future__ import annotations

from pathlib import Path

from entprop_fast.lab.data.idx_files import find_idx, read_set
from entprop_fast.lab.data.image_data import ImageData

NAME = "fashion_mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag"),
    "Ankle boot",
)

# Of the unpacked files: Debian packed them anew, so that the packed ones have other sums.
MD5 = (
    "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "9018921c3c673c538a1fc5bad174d6f9",
    "8181f5470baa50b63fa0f6fddb340f0a",
    "15d484375f8d13e6eb1aabb0c3f46965",
)

_WITHIN = (".", "fashion-mnist", "FashionMNIST/raw", NAME)  # torchvision's is the third
PAGE = "https://github.com/zalandoresearch/fashion-mnist"


def load_fashion_mnist(data_dir: Path | None) -> ImageData:
    """Load 60,000 training and 10,000 test images of 28x28, grey, of 10 classes.

    Args:
        data_dir: folder of the files, gzip or unpacked; None: Debian's.

    Raises:
        FileNotFoundError: they are not there; the message says how to get them.
        ValueError: they are damaged, or not the official ones.
    """
    folder = DEBIAN if data_dir is None else data_dir
    found = (find_idx(folder / one) for one in _WITHIN)
    files = next((one for one in found if one is not None), None)
    if files is None:
        where = f"is not in {data_dir or DEBIAN}"
        raise FileNotFoundError(
            f"data set {NAME!r} {where}: apt-get install dataset-fashion-mnist (Debian, Ubuntu), "
            f"and leave --data-dir out; or fetch the four files train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz "
            f"from {PAGE} into DIR, and give --data-dir DIR"
        )
    return read_set(NAME, files, CLASSES, MD5)


def found_in(data_dir: Path) -> list[Path]:
    """List the folders that hold the set: within ``data_dir``, or it, where its name says so.

    MNIST's files are called as these are.
    """
    folders = [data_dir / one for one in _WITHIN if one != "."]
    if "fashion" in data_dir.absolute().name.casefold():
        folders.insert(0, data_dir)
    return [one for one in folders if one.is_dir() and find_idx(one) is not None]

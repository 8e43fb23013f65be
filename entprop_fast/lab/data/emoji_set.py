"""Load the emoji set, which ``python -m entprop_fast.data emoji`` makes."""

from __future__ import annotations

from pathlib import Path

from entprop_fast.lab.data.image_data import ImageData
from entprop_fast.lab.data.npz_files import load_npz

NAME = "emoji"
SIDE = 32  # pixels
LICENCES = "LICENSES-emoji.txt"  # whose pictures they are, beside the file
TERMS = "Apache-2.0, CC-BY-4.0, CC-BY-SA-4.0, MIT"
USUAL = Path("data")  # where it is written, and looked for

_WITHIN = (".", NAME)


def file_name(size: int) -> str:
    """Return the name of the set's file at a height and width."""
    return f"{NAME}-{size}.npz"


def load_emoji(data_dir: Path | None) -> ImageData:
    """Load 32x32 pictures of 13 classes: training and test images show different things.

    Two further test sets are of an artist whose pictures are in no other: of things that training
    images show, and of things that test images do.

    Args:
        data_dir: folder of the file; None: ``data``.

    Raises:
        FileNotFoundError: it is not there; the message says how to make it.
        ValueError: it is damaged.
    """
    folder = USUAL if data_dir is None else data_dir
    places = found_in(folder)
    if not places:
        raise FileNotFoundError(
            f"data set {NAME!r} is not in {folder}: pip install 'entprop_fast[emoji]', and then "
            f"python -m entprop_fast.data emoji --out {folder} makes {file_name(SIDE)} out of "
            "npm's packages (30 MB to fetch, a minute)"
        )
    return load_npz(NAME, places[0])


def found_in(data_dir: Path) -> list[Path]:
    """List the set's files within ``data_dir``."""
    return [path for one in _WITHIN if (path := data_dir / one / file_name(SIDE)).is_file()]

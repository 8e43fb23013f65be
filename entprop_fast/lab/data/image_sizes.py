"""How large the files of a data set are, out of a few of their headers."""

from __future__ import annotations

import statistics
from pathlib import Path

from entprop_fast.lab.data.datasets import FOLDER, locate_splits
from entprop_fast.lab.data.image_files import IMAGE_SIZE
from entprop_fast.lab.data.read_image import describe_image

_HEADERS = 64  # of files, spread over the list
_NEAR = 0.85  # of 224: images that are hardly enlarged
_STEP = 4  # pixels


def usual_image_size(name: str, data_dir: str | Path | None) -> int | None:
    """Height and width to train at: the files' own where they are smaller than 224.

    Args:
        name: of a data set; those that have a name have one size, and get None.
        data_dir: where it is, as `entprop_fast.data.load` takes it.

    Returns:
        The median of the shorter sides, in steps of 4 pixels, and at most 224; None where no file
        can be read: `load` says why.
    """
    if not name.startswith(FOLDER):
        return None
    try:
        _, splits = locate_splits(name, None if data_dir is None else Path(data_dir))
    except (ValueError, OSError):
        return None
    sides = []
    listed = splits.train or splits.test
    for file, _ in listed[:: max(1, len(listed) // _HEADERS)]:
        try:
            sides.append(min(describe_image(splits.root / file).size))
        except Exception:  # Pillow raises whatever broken bytes lead it to; `load` names the file
            continue
    if not sides:
        return None
    side = statistics.median(sides)
    return IMAGE_SIZE if side >= _NEAR * IMAGE_SIZE else max(_STEP, round(side / _STEP) * _STEP)

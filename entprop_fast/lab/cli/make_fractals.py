"""Make the fractals that PixMix mixes in: ``python -m entprop_fast.data fractals``."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from entprop_fast.augment import PixMix
from entprop_fast.augment.fractal_cache import (
    SIZES,
    cache_folder,
    file_name,
    read_fractals,
    write_fractals,
)
from entprop_fast.augment.fractals import make_fractals
from entprop_fast.lab import files
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.optional import require

_ACROSS, _SHOWN = 16, 128  # pictures of a sheet


def make_set(
    count: int, size: int, seed: int, out: str | None, sheet: str | None, reporter: Reporter
) -> None:
    """Make and write a set of fractals that is not there, check one that is, and draw a sheet.

    Args:
        count: of fractals.
        size: height and width in pixels.
        seed: of the fractals.
        out: folder of the set; None: the cache where PixMix looks for it.
        sheet: PNG that shows the first ones; None: none.
        reporter: to say what was done.

    Raises:
        ValueError: the sheet is no PNG, or what has the set's name is no such set.
        OSError: a file cannot be written.
    """
    if sheet is not None and (not sheet.lower().endswith(".png") or Path(sheet).is_dir()):
        raise ValueError(f"--sheet {sheet}: expected the name of a .png file")
    if sheet is not None and not Path(sheet).absolute().parent.is_dir():
        raise FileNotFoundError(f"--sheet {sheet}: there is no such folder")
    folder = cache_folder() if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)  # before the minutes that making takes
    path = folder / file_name(count, size, seed)
    if os.path.lexists(path):
        pictures = read_fractals(path, count, size)
        reporter.say(f"{path}: these {count:,} fractals are there")
    else:
        with reporter.waiting(f"making {count:,} fractals"):
            pictures = make_fractals(count, size, seed)
        write_fractals(path, pictures)
        reporter.say(f"{path}: {count:,} fractals of {size} pixels, seed {seed}")
    if out is not None or seed != 0 or count != PixMix.pictures or size not in SIZES:
        reporter.say(f"mixed in by --augment crop-flip+pixmix:mixing_set={path}")
    if sheet is not None:
        _draw(pictures[:_SHOWN], Path(sheet))
        reporter.say(f"{sheet}: the first {min(count, _SHOWN)}")


def _draw(pictures: Tensor, path: Path) -> None:
    require("PIL", extra="train", purpose="--sheet")
    from PIL import Image

    count, _, size, _ = pictures.shape
    across = min(_ACROSS, count)
    down = -(-count // across)
    sheet = torch.zeros(down * across, size, size, 3, dtype=torch.uint8)
    sheet[:count] = pictures.permute(0, 2, 3, 1)
    lines = sheet.view(down, across, size, size, 3).transpose(1, 2)
    with files.create(path) as file:
        Image.fromarray(lines.reshape(down * size, across * size, 3).numpy()).save(file, "PNG")

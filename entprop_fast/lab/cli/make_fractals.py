"""Make the fractals that PixMix mixes in: ``python -m entprop_fast.data fractals``."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from entprop_fast.augment.fractals import make_fractals
from entprop_fast.augment.mixing_set import (
    cache_folder,
    file_name,
    read_fractals,
    write_fractals,
)
from entprop_fast.lab import files
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.optional import require
from entprop_fast.options import option

_ACROSS, _SHOWN = 16, 128  # pictures of a sheet


@dataclass(frozen=True, kw_only=True)
class FractalFlags:
    """Hold the flags of `fractals`; None: as PixMix takes it."""

    count: int | None = option(
        None,
        "Number of fractals. Left out, it is 512.",
        low=1,
        high=100_000,
        group="fractals",
    )
    size: int | None = option(
        None,
        "Height and width of the fractals. Left out, it is 64, for images of up to 57 pixels; "
        "PixMix takes 128 up to 114 pixels and 256 above.",
        low=8,
        high=1024,
        unit="pixels",
        group="fractals",
    )
    seed: int | None = option(
        None, "Seed of the fractals. Left out, it is 0.", low=0, group="fractals"
    )
    sheet: str | None = option(None, "PNG to write that shows the first 128.", group="output")
    out: str | None = option(
        None,
        "Folder of the fractals. Left out, it is the cache where PixMix looks for them.",
        group="output",
    )


def run(flags: FractalFlags, reporter: Reporter) -> None:
    """Make and write a set of fractals that is not there, check one that is, and draw the sheet.

    Raises:
        ValueError: what has the file's name is no such set.
        OSError: a file cannot be written.
    """
    count, size, seed = flags.count or 512, flags.size or 64, flags.seed or 0
    sheet = Path(flags.sheet) if flags.sheet is not None else None
    if sheet is not None and (sheet.suffix.lower() != ".png" or sheet.is_dir()):
        raise ValueError(f"--sheet {flags.sheet}: expected the name of a .png file")
    folder = cache_folder() if flags.out is None else Path(flags.out)
    path = folder / file_name(count, size, seed)
    if os.path.lexists(path):
        pictures = read_fractals(path, count, size)
        reporter.say(f"{path}: these {count:,} fractals are there")
    else:
        with reporter.waiting(f"making {count:,} fractals"):
            pictures = make_fractals(count, size, seed)
        write_fractals(path, pictures)
        reporter.say(f"{path}: {count:,} fractals of {size} pixels, seed {seed}")
    if flags.out is not None:
        reporter.say(f"mixed in by --augment crop-flip+pixmix:mixing_set={path}")
    if sheet is not None:
        _draw(pictures[:_SHOWN], sheet)
        reporter.say(f"{sheet}: the first {min(count, _SHOWN)}")


def unused(flags: FractalFlags) -> None:
    """Refuse flags of fractals beside another command.

    Raises:
        ValueError: one was given.
    """
    for one in fields(FractalFlags):
        if getattr(flags, one.name) is not None:
            raise ValueError(f"--{one.name} goes with data fractals")


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

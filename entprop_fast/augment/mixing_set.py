"""Give the pictures that PixMix mixes in: fractals of our own, or the user's, at a size."""

from __future__ import annotations

import functools
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from entprop_fast.augment.fractal_cache import SIZES, fractals
from entprop_fast.ops.image_chains_enhancement import grey
from entprop_fast.optional import require
from entprop_fast.torch_internals import dispatch_modes_active

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_FORMATS = ("BMP", "JPEG", "PNG", "WEBP")  # whatever a file is called: EPS runs a program


def pictures_of(
    path: str | None,
    count: int,
    side: int,
    channels: int,
    channels_last: bool,
    device: torch.device,
) -> Tensor:
    """Return the pictures at a size on a device, where they are kept.

    Args:
        path: None: fractals; or of a folder of pictures, or an ``.npy`` or ``.npz`` file.
        count: of the fractals.
        side: height and width in pixels.
        channels: 3, or 1 for the grey of the colours.
        channels_last: keep a pixel's channels together.
        device: to keep them on.

    Returns:
        uint8, contiguous: ``[N, channels, side, side]``, or ``[N, side, side, channels]``.

    Raises:
        ValueError: there is no picture, or one that cannot be read.
    """
    # A tensor made under a dispatch mode may hold no values.
    made = _made.__wrapped__ if dispatch_modes_active() else _made
    pictures: Tensor = made(path, count, side, channels, channels_last, device)
    return pictures


@functools.lru_cache(maxsize=16)
def _made(
    path: str | None,
    count: int,
    side: int,
    channels: int,
    channels_last: bool,
    device: torch.device,
) -> Tensor:
    if path is None:
        size = next((size for size in SIZES if size >= side), SIZES[-1])
        pictures = resized(fractals(count, size), side)
    elif Path(path).is_dir():
        pictures = _read_folder(Path(path), side)
    else:
        pictures = resized(_read_arrays(Path(path)), side)
    if channels == 1:
        pictures = grey(pictures)
    order = (0, 2, 3, 1) if channels_last else (0, 1, 2, 3)
    return pictures.permute(order).contiguous().to(device)


def resized(pictures: Tensor, side: int) -> Tensor:
    """Resize uint8 ``[N, 3, H, W]`` so that the shorter edge is `side`, and cut out the middle."""
    parts = []
    for part in pictures.split(64):
        height, width = part.shape[2:]
        shape = [max(side, round(edge * side / min(height, width))) for edge in (height, width)]
        if shape != [height, width]:
            big = functional.interpolate(part.float(), shape, mode="bilinear", antialias=True)
            part = big.add_(0.5).clamp_(0, 255).to(torch.uint8)
        top, left = ((edge - side) // 2 for edge in shape)
        parts.append(part[:, :, top : top + side, left : left + side])
    return torch.cat(parts)


def check_path(path: Any) -> str | None:
    """Check that a mixing set is there; its pictures are read when they are first used.

    Raises:
        TypeError: it is no path.
        ValueError: nothing is there, or a file of another kind, or a folder without pictures.
    """
    if path is None or path == "fractals":
        return None
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"mixing_set={path!r}: expected a path, or None for fractals")
    if not str(path).strip():  # as a path, it is the current folder
        raise ValueError(f"mixing_set={str(path)!r} is empty: expected a path, or fractals")
    place = Path(path).expanduser()
    if place.is_dir():
        if next(_files(place), None) is None:
            raise ValueError(f"mixing_set={str(path)!r} holds no picture ({', '.join(SUFFIXES)})")
    elif place.suffix not in (".npy", ".npz") or not place.is_file():
        raise ValueError(
            f"mixing_set={str(path)!r}: expected a folder of pictures, an .npy or .npz file, "
            "or None for fractals"
        )
    return str(place)


def _files(folder: Path) -> Iterator[Path]:
    return (
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def _read_folder(folder: Path, side: int) -> Tensor:
    require("PIL", extra="vision", purpose=f"reading the pictures of {folder}")
    from PIL import Image

    parts = []
    for path in sorted(_files(folder)):
        try:
            with Image.open(path, formats=_FORMATS) as opened:
                opened.draft("RGB", (2 * side, 2 * side))  # a JPEG's own smaller version
                pixels = np.array(opened.convert("RGB"))
        except Exception as error:  # a decoder may raise anything
            raise ValueError(f"{path} cannot be read as a picture: {error}") from error
        parts.append(resized(torch.from_numpy(pixels).permute(2, 0, 1)[None], side))
    return torch.cat(parts)


def _read_arrays(path: Path) -> Tensor:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            values = loaded
        else:
            with loaded:
                names = loaded.files
                values = loaded["images" if "images" in names else names[0]]
    except (OSError, ValueError, EOFError, LookupError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read as arrays: {error}") from error
    if values.dtype != np.uint8 or values.ndim != 4 or 0 in values.shape or values.shape[3] != 3:
        raise ValueError(
            f"{path} holds {values.dtype} {list(values.shape)}: expected uint8 [N, H, W, 3]"
        )
    return torch.from_numpy(values).permute(0, 3, 1, 2)

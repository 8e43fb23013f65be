"""Keep sets of fractals in files: each is made once."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from entprop_fast.augment.fractals import VERSION, make_fractals

SIZES = (64, 128, 256)  # that PixMix asks for; larger images get the largest
_HEADER = 4096  # bytes that an .npy file may have before its values


def cache_folder() -> Path:
    """Return where fractals are cached: below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "entprop_fast" / "fractals"


def file_name(count: int, size: int, seed: int) -> str:
    """Return the name of a cached set, which says all that it depends on."""
    return f"fractals-v{VERSION}-{count}x{size}-seed{seed}.npy"


def fractals(count: int, size: int, seed: int = 0, folder: Path | None = None) -> Tensor:
    """Return fractal pictures from the cache, or make and cache them.

    Args:
        count: of pictures.
        size: height and width in pixels.
        seed: of the pictures.
        folder: of the cache; None: `cache_folder`. One that cannot be written is warned of.

    Returns:
        uint8 ``[count, 3, size, size]`` on the CPU.

    Raises:
        ValueError: the cached file is broken, or something else has its name.
    """
    path = (folder or cache_folder()) / file_name(count, size, seed)
    if os.path.lexists(path):
        return read_fractals(path, count, size)
    made = make_fractals(count, size, seed)
    try:
        write_fractals(path, made)
    except OSError as error:
        warnings.warn(f"fractals are not cached: {error}", RuntimeWarning, stacklevel=2)
    return made


def read_fractals(path: Path, count: int, size: int) -> Tensor:
    """Return the pictures of a file that `write_fractals` wrote, uint8 ``[count, 3, size, size]``.

    Raises:
        ValueError: it is another file.
    """
    shape = (count, size, size, 3)
    try:
        if not path.is_file() or path.stat().st_size > math.prod(shape) + _HEADER:
            raise ValueError("another kind or size of file")
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray):  # an archive of arrays, open
            values.close()
            raise ValueError("another kind of file")
        if values.dtype != np.uint8 or values.shape != shape:
            raise ValueError(f"{values.dtype} {list(values.shape)}, not uint8 {list(shape)}")
    except (OSError, ValueError, EOFError, SyntaxError, BadZipFile) as error:
        raise ValueError(f"{path} is not the set of fractals ({error}): remove it") from error
    return torch.from_numpy(values).permute(0, 3, 1, 2)


def write_fractals(path: Path, pictures: Tensor) -> None:
    """Write pictures ``[N, 3, H, W]`` as ``[N, H, W, 3]``, at once: others may write the same.

    Raises:
        OSError: the folder cannot be made or written; nothing is left there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}-{os.getpid()}")
    part.unlink(missing_ok=True)  # of a process that was killed, and had this number
    try:
        with open(part, "xb") as file:  # a new file, through no link
            np.save(file, pictures.permute(0, 2, 3, 1).numpy(), allow_pickle=False)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

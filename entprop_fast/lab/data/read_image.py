"""Read one image file as RGB, or say why not."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from entprop_fast.optional import require

if TYPE_CHECKING:
    from PIL.Image import Image

# Of 16 or 32 bits a value: Pillow cuts them off at 255 instead of scaling them.
_DEEP_MODES = ("I", "F")

# Whatever a file is called, nothing else is decoded: Pillow hands EPS to Ghostscript, a program.
_FORMATS = (
    "JPEG MPO PNG BMP DIB GIF PPM TIFF WEBP AVIF JPEG2000 TGA ICO".split()
)  # MPO: a phone's JPEG with a second picture

_ORIENTATION = 0x0112  # EXIF

# What is saved as an image and is none: how its bytes begin, and what it is.
_LOOKALIKES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer (git lfs pull fetches the image)"),
    (b"/annex/objects/", "a git-annex pointer (git annex get fetches the image)"),
    (b"../", "a link's target as text (a clone without symbolic links?)"),
    (b"<!doctype html", "an HTML page (a download that failed?)"),
    (b"<html", "an HTML page (a download that failed?)"),
    (b"<?xml", "an XML file"),
    (b"<svg", "an SVG drawing"),
    (b"{", "a JSON file (a download that failed?)"),
    (b"%pdf", "a PDF"),
    (b"%!ps", "a PostScript file"),
    (b"pk\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"rar!", "a rar archive"),
)
_PEEKED = 512  # bytes


def read_image(path: Path, *, draft: int | None = None) -> Image:
    """Decode the image in a file to its end and convert it to RGB as torchvision does.

    Grey, palette, CMYK and transparent images are converted; transparency is dropped. Of several
    frames (GIF, TIFF, WebP) the first is read.

    Args:
        path: JPEG, PNG, BMP, GIF, PPM, TIFF, WebP, JPEG 2000, TGA, ICO or, where Pillow was built
            with it, AVIF; by its bytes, not by its name.
        draft: lets a JPEG be decoded to no less than this many pixels a side, at a fraction of
            the cost; everything in the file is still read.
    """
    require("PIL", extra="vision", purpose="reading image files")
    from PIL import Image

    try:
        if path.stat().st_size == 0:
            raise OSError("it has zero bytes")
        with Image.open(path, formats=_formats()) as image:
            if image.mode.startswith(_DEEP_MODES):
                raise OSError(f"its mode {image.mode} has more than 8 bits a value")
            if draft is not None:
                image.draft(None, (draft, draft))
            return image.convert("RGB")
    except Exception as error:  # Pillow's plugins raise whatever broken bytes lead them to
        raise OSError(f"{path}: {_reason(path, error)}") from error


class Description(NamedTuple):
    """Hold what an image's header says."""

    size: tuple[int, int]  # width and height in pixels
    mode: str  # Pillow's
    frames: int
    turned: bool  # EXIF asks for a rotation or a mirroring, which nothing here applies


def describe_image(path: Path) -> Description:
    """Read the header of a readable image."""
    from PIL import Image

    try:
        with Image.open(path, formats=_formats()) as image:
            turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
            # A phone's second picture (MPO) is a preview or a depth map, no frame.
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            return Description(image.size, image.mode, frames, turned)
    except Exception as error:  # as above: a later frame may be broken, too
        raise OSError(f"{path}: {_reason(path, error)}") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is a link to nothing" if path.is_symlink() else "there is no such file"
    if type(error).__name__ == "UnidentifiedImageError":
        return f"it is no image that Pillow knows{_instead(path)}"
    return " ".join(str(error).split()) or type(error).__name__


def _instead(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(_PEEKED)
    if not start.strip(b"\0"):
        return ", but zeros (a copy or download that broke off?)"
    if start[4:8] == b"ftyp":
        return ", but HEIC, AVIF or a video; convert it to JPEG or PNG"
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kind = next((kind for begins, kind in _LOOKALIKES if text.startswith(begins)), None)
    if kind is not None:
        return f", but {kind}"
    if start.isascii() and b"\0" not in start:
        return ", but text"
    return ""

"""One image file as RGB, or the reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from entprop_fast.optional import needs

if TYPE_CHECKING:
    from PIL.Image import Image

# Of 16 or 32 bits a value: Pillow cuts them off at 255 instead of scaling them.
_DEEP_MODES = ("I", "F")


def read_image(path: Path, *, draft: int | None = None) -> Image:
    """The image in a file, decoded to the end and converted to RGB as torchvision does.

    Grey, palette, CMYK and transparent images are converted; transparency is dropped.

    Args:
        path: any format that Pillow reads.
        draft: lets a JPEG be decoded to no less than this many pixels a side, at a fraction of
            the cost; everything in the file is still read.

    Raises:
        OSError: it is missing, empty, cut off, of more than 8 bits a value, or no image; the
            message begins with the path.
        ImportError: Pillow is not installed.
    """
    with needs("PIL", extra="vision", purpose="reading image files"):
        from PIL import Image
    try:
        if path.stat().st_size == 0:
            raise OSError("it has zero bytes")
        with Image.open(path) as image:
            if image.mode.startswith(_DEEP_MODES):
                raise OSError(f"its mode {image.mode} has more than 8 bits a value")
            if draft is not None:
                image.draft(None, (draft, draft))
            return image.convert("RGB")
    except Exception as error:  # Pillow's plugins raise whatever broken bytes lead them to
        raise OSError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if type(error).__name__ == "UnidentifiedImageError":
        return "it is no image that Pillow knows"
    return " ".join(str(error).split()) or type(error).__name__


def describe_image(path: Path) -> tuple[tuple[int, int], str]:
    """Width and height in pixels, and Pillow's mode, out of the header of a readable image."""
    from PIL import Image

    with Image.open(path) as image:
        return image.size, image.mode

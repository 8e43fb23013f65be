"""Put images into a page: small, and within the page itself."""

from __future__ import annotations

import base64
import io

from PIL import Image
from torch import Tensor

SIDE = 112  # pixels of the longer side, at most
_WHOLE = 64  # pixels up to which every one is kept as it is
_QUALITY = 85


def data_uri(image: Tensor) -> str:
    """Write an image as a data URI: small ones as PNG, larger ones as JPEG of at most `SIDE`.

    Args:
        image: floating ``[C, H, W]`` in [0, 1], or uint8. Other than 3 channels are shown as their
            mean, in grey.
    """
    picture = _picture(image)
    buffer = io.BytesIO()
    if max(picture.size) <= _WHOLE:
        picture.save(buffer, format="PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((SIDE, SIDE))
        picture.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _picture(image: Tensor) -> Image.Image:
    levels = image.float() if not image.is_floating_point() else 255 * image.float().clamp(0, 1)
    if len(levels) != 3:
        return Image.fromarray(levels.mean(dim=0).round().byte().cpu().numpy())
    return Image.fromarray(levels.round().byte().permute(1, 2, 0).contiguous().cpu().numpy())

"""image_chains against Pillow, image by image; and the kernels against the reference."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from entprop_fast.ops.image_chains import GEOMETRIC, NEAREST, ImageOp
from tests.kernel_cases.image_chains import (
    CODES,
    SHAPES,
    STRENGTHS,
    pictures,
    single,
)

ENHANCE = {
    ImageOp.BRIGHTNESS: ImageEnhance.Brightness,
    ImageOp.COLOR: ImageEnhance.Color,
    ImageOp.CONTRAST: ImageEnhance.Contrast,
    ImageOp.SHARPNESS: ImageEnhance.Sharpness,
}


def to_pillow(levels: Tensor) -> Image.Image:
    array = levels.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array[:, :, 0] if array.shape[2] == 1 else array))


def from_pillow(image: Image.Image) -> Tensor:
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


def by_pillow(image: Image.Image, code: int, strength: float) -> Image.Image:
    """Apply what a code names."""
    op = ImageOp(code % NEAREST)
    sampling = Image.Resampling.NEAREST if code >= NEAREST else Image.Resampling.BILINEAR
    affine = {
        ImageOp.SHEAR_X: (1, strength, 0, 0, 1, 0),
        ImageOp.SHEAR_Y: (1, 0, 0, strength, 1, 0),
        ImageOp.TRANSLATE_X: (1, 0, strength, 0, 1, 0),
        ImageOp.TRANSLATE_Y: (1, 0, 0, 0, 1, strength),
    }
    if op in affine:
        return image.transform(image.size, Image.Transform.AFFINE, affine[op], resample=sampling)
    if op in ENHANCE:
        return ENHANCE[op](image).enhance(strength)
    match op:
        case ImageOp.ROTATE:
            return image.rotate(strength, resample=sampling)
        case ImageOp.AUTOCONTRAST:
            return ImageOps.autocontrast(image)
        case ImageOp.EQUALIZE:
            return ImageOps.equalize(image)
        case ImageOp.POSTERIZE:
            return ImageOps.posterize(image, int(strength))
        case ImageOp.SOLARIZE:
            return ImageOps.solarize(image, strength)  # type: ignore[arg-type]
        case ImageOp.INVERT:
            return ImageOps.invert(image)
    return image


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("code", CODES)
def test_an_operation_is_pillows(ops: SimpleNamespace, code: int, kind: str) -> None:
    """To the bit, bilinear sampling to one level and most pixels to the bit."""
    if kind == "wide" and code % NEAREST not in GEOMETRIC:
        pytest.skip("a size says something new of geometry alone")
    images = pictures(SHAPES[kind])[:5]
    for strength in STRENGTHS[ImageOp(code % NEAREST)]:
        strength = float(np.float32(strength))
        arguments = single(images, code, strength, str(torch.get_default_device()))
        found = ops.image_chains(*arguments).cpu().int()
        expected = [from_pillow(by_pillow(to_pillow(one), code, strength)) for one in images.cpu()]
        apart = (found - torch.stack(expected).int()).abs()
        if code in GEOMETRIC:
            assert apart.max() <= 1, strength
            assert (apart > 0).float().mean() < 0.03, strength
        else:
            assert apart.max() == 0, strength

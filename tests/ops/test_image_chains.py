"""image_chains against Pillow, image by image; and the kernels against the reference."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from entprop_fast.ops import image_chains
from entprop_fast.ops.image_chains import GEOMETRIC, NEAREST, OP, ImageOp
from tests.kernel_cases.image_chains import (
    CASES,
    CODES,
    SHAPES,
    mixtures,
    pictures,
    single,
)
from tests.ops.checks import LAYOUTS

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


SIZES = {"geometry": ("small", "odd", "narrow-grey", "wide"), "others": ("odd", "grey", "two-rows")}


@pytest.mark.parametrize("code", CODES)
def test_an_operation_is_pillows(ops: SimpleNamespace, code: int) -> None:
    """To the bit; bilinear sampling to one level, and most pixels to the bit."""
    geometric = code % NEAREST in GEOMETRIC
    for kind in ("one-pixel", *SIZES["geometry" if geometric else "others"]):
        arguments = single(pictures(SHAPES[kind])[:5], code)
        found = ops.image_chains(*(value.to(torch.get_default_device()) for value in arguments))
        expected = [
            from_pillow(by_pillow(to_pillow(one), code, float(strength)))
            for one, strength in zip(arguments[0], arguments[2].flatten(), strict=True)
        ]
        apart = (found.cpu().int() - torch.stack(expected).int()).abs()
        if geometric and code < NEAREST:
            assert apart.max() <= 1
            assert (apart > 0).float().mean() < 0.01
        else:
            assert apart.max() == 0


def by_definition(
    images: Tensor, codes: Tensor, strengths: Tensor, weights: Tensor, keep: Tensor
) -> Tensor:
    """Run the chains image by image with Pillow, and mix in float64."""
    mixed = keep.double()[:, None, None, None] * images
    for chain in range(codes.shape[1]):
        for row, image in enumerate(images):
            picture = to_pillow(image)
            for code, strength in zip(codes[row, chain], strengths[row, chain], strict=True):
                picture = by_pillow(picture, int(code), float(strength))
            mixed[row] += weights[row, chain].double() * from_pillow(picture)
    return (mixed + 0.5).floor().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("kind", ["odd", "grey"])
def test_chains_are_mixed(ops: SimpleNamespace, kind: str) -> None:
    """In order, by their weights; without bilinear sampling, whose one level may grow."""
    images, codes, strengths, weights, keep = mixtures(SHAPES[kind], 3, 3)
    bilinear = (codes >= min(GEOMETRIC)) & (codes <= max(GEOMETRIC))
    codes = torch.where(bilinear, codes + NEAREST, codes)
    expected = by_definition(images, codes, strengths, weights, keep)
    given = (images, codes, strengths, weights, keep)
    found = ops.image_chains(*(value.to(torch.get_default_device()) for value in given))
    apart = (found.cpu().int() - expected.int()).abs()
    assert apart.max() <= 1  # float32 and float64 may round the mixture differently
    assert (apart > 0).float().mean() < 0.001


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_gives_the_bits_of_the_reference(
    ops: SimpleNamespace, backend: str, name: str
) -> None:
    """Beyond what is published, too: any code, infinite strengths."""
    if backend == "reference":
        pytest.skip("it is the reference")
    CASES[name](ops, str(torch.get_default_device()))


@pytest.mark.parametrize("name", ["no-chain", "no-operation", "no-rows"])
def test_nothing_to_do(ops: SimpleNamespace, name: str) -> None:
    CASES[name](ops, str(torch.get_default_device()))


def test_a_row_does_not_depend_on_the_others(ops: SimpleNamespace) -> None:
    given = [value.to(torch.get_default_device()) for value in mixtures(SHAPES["odd"], 3, 3)]
    together = ops.image_chains(*given)
    for row in (0, 7, 15):
        alone = ops.image_chains(*(value[row : row + 1].contiguous() for value in given))
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_result_keeps_the_layout(ops: SimpleNamespace, layout: str) -> None:
    images, *others = (value.to(torch.get_default_device()) for value in mixtures((3, 6, 5), 2, 1))
    laid_out = LAYOUTS[layout](images)
    found = ops.image_chains(laid_out, *others)
    expected = ops.image_chains(laid_out.contiguous(), *others)
    assert torch.equal(found, expected)
    like = expected if layout != "channels_last" else laid_out
    assert found.stride() == like.stride()


@pytest.mark.parametrize("layout", ["channels_last", "sliced"])
def test_opcheck(device: str, layout: str) -> None:
    images, *others = (value.to(device) for value in mixtures((3, 6, 5), 2, 2))
    torch.library.opcheck(OP, (LAYOUTS[layout](images), *others))


def test_public_function(backend: str) -> None:
    given = [value.to(torch.get_default_device()) for value in mixtures((1, 9, 9), 2, 2)]
    assert torch.equal(image_chains(*given), OP(*given))
    with pytest.raises(ValueError, match=r"^codes: "):
        image_chains(given[0], given[1].int(), *given[2:])
    with pytest.raises(ValueError, match=r"^images: "):
        image_chains(given[0].float(), *given[1:])


@pytest.mark.parametrize("shape", [(2, 2, 5, 5), (2, 5, 5), (2, 3, 0, 5), (2, 3, 1, 2**15 + 1)])
def test_images_of_another_shape_are_refused(ops: SimpleNamespace, shape: tuple[int, ...]) -> None:
    one = torch.ones(2, 1)
    codes = torch.zeros(2, 1, 1, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"^images: "):
        ops.image_chains(
            torch.zeros(shape, dtype=torch.uint8), codes, one[:, :, None], one, one[:, 0]
        )

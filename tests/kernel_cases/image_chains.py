"""Value checks of `image_chains`: every kernel gives the reference's bits.

Inputs are made on the CPU, also under another default device.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from entprop_fast.ops.image_chains import GEOMETRIC, NEAREST, ImageOp, reference

SHAPES = {
    "small": (3, 32, 32),
    "odd": (3, 13, 17),
    "grey": (1, 28, 28),
    "narrow-grey": (1, 31, 7),
    "two-rows": (3, 2, 5),
    "one-pixel": (3, 1, 1),
    "wide": (3, 24, 70),
}
FACTORS = (0.0, 0.1, 0.333, 0.95, 1.0, 1.9, 1.99, 0.37, -0.5)
# What each operation is tried with; the published augmentations stay within these.
STRENGTHS: dict[ImageOp, tuple[float, ...]] = {
    ImageOp.IDENTITY: (0.0,),
    ImageOp.AUTOCONTRAST: (0.0,),
    ImageOp.EQUALIZE: (0.0,),
    ImageOp.POSTERIZE: (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
    ImageOp.SOLARIZE: (0.0, 1.0, 100.5, 128.0, 238.00001, 255.0, 256.0),
    ImageOp.ROTATE: (0.0, 29.0, -29.0, 7.0, 90.0, 180.0, -135.0, 4.5, 359.3),
    ImageOp.SHEAR_X: (0.0, 0.3, -0.3, 0.123, 0.99),
    ImageOp.SHEAR_Y: (0.0, 0.3, -0.3, 0.123, -0.99),
    ImageOp.TRANSLATE_X: (0.0, 3.0, -3.0, 0.5, 2.25, 100.0, 10.67),
    ImageOp.TRANSLATE_Y: (0.0, 3.0, -3.0, 0.5, 2.25, -100.0, -10.67),
    ImageOp.BRIGHTNESS: FACTORS,
    ImageOp.COLOR: FACTORS,
    ImageOp.CONTRAST: FACTORS,
    ImageOp.SHARPNESS: FACTORS,
    ImageOp.INVERT: (0.0,),
}
# Beyond them: nothing may fault, and the bits are still the reference's.
WILD = (0.0, -1.0, 8.7, 1e3, -1e30, float("inf"), float("-inf"), float("nan"))
CODES = (*map(int, ImageOp), *(op + NEAREST for op in GEOMETRIC))
_P = ParamSpec("_P")
_R = TypeVar("_R")
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def _on_cpu(make: Callable[_P, _R]) -> Callable[_P, _R]:
    """Return `make` without the default device of whoever calls it."""

    @wraps(make)
    def call(*arguments: _P.args, **keywords: _P.kwargs) -> _R:
        with torch.device("cpu"):
            return make(*arguments, **keywords)

    return call


@_on_cpu
def pictures(shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Return images of every kind, uint8 [8, C, H, W]: noise, waves, dark, flat, few levels."""
    channels, height, width = shape
    generator = torch.Generator().manual_seed(seed + 31 * height + width)
    noise = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    across, down = torch.arange(width) / 5, torch.arange(height)[:, None] / 7
    phase = torch.arange(channels)[:, None, None] * 0.3
    waves = (((across.sin() + down.cos() + phase) * 60) + 120).clamp(0, 255).to(torch.uint8)
    flat = torch.full_like(noise, 77)
    few, dark = noise // 128 * 3 + 100, noise // 5 + 7
    return torch.stack([noise, waves, dark, flat, few, waves // 9 * 9, noise // 2, 255 - waves])


@_on_cpu
def single(images: Tensor, code: int) -> tuple[Tensor, ...]:
    """Return the op's arguments that apply one operation with each of its strengths.

    Strength by strength, to every image.
    """
    values = torch.tensor(STRENGTHS[ImageOp(code % NEAREST)])
    strengths = values.repeat_interleave(len(images))[:, None, None]
    codes = torch.full_like(strengths, code, dtype=torch.uint8)
    one = torch.ones(len(strengths), 1)
    return images.repeat(len(values), 1, 1, 1), codes, strengths, one, 1 - one[:, 0]


@_on_cpu
def apiece(shape: tuple[int, int, int]) -> tuple[Tensor, ...]:
    """Return the op's arguments for each code, an image apiece, channels_last."""
    drawn = [(code, (STRENGTHS[ImageOp(code % NEAREST)] * 2)[1]) for code in CODES]
    drawn += [(63, 1.0), *((code, WILD[code % 8]) for code in CODES[::4])]
    images = pictures(shape)[torch.arange(len(drawn)) * 5 % 8]
    return _programs(images.contiguous(memory_format=torch.channels_last), drawn)


@_on_cpu
def large() -> tuple[Tensor, ...]:
    """Return such arguments for 552 pixels.

    Equalize has steps of 2; a threshold is a level; strengths are no number, and out of bounds.
    """
    drawn = [(ImageOp.EQUALIZE, 0.0), (ImageOp.EQUALIZE, 0.0), (ImageOp.CONTRAST, 0.7)]
    drawn += [(ImageOp.SOLARIZE, 103.0), (ImageOp.CONTRAST, float("nan"))]
    drawn += [(ImageOp.TRANSLATE_X, 1e30)]
    return _programs(pictures((1, 24, 23))[[0, 1, 2, 4, 0, 1]], drawn)


def _programs(images: Tensor, drawn: Sequence[tuple[int, float]]) -> tuple[Tensor, ...]:
    codes = torch.tensor([code for code, _ in drawn], dtype=torch.uint8)[:, None, None]
    strengths = torch.tensor([strength for _, strength in drawn])[:, None, None]
    one = torch.ones(len(drawn), 1)
    return images, codes, strengths, one, one[:, 0] * 0


@_on_cpu
def mixtures(
    shape: tuple[int, int, int], width: int, depth: int, *, wild: bool = False
) -> tuple[Tensor, ...]:
    """Return the op's arguments with chains drawn at random for 16 images."""
    images = pictures(shape).repeat(2, 1, 1, 1)
    generator = torch.Generator().manual_seed(width + 10 * depth)
    size = (len(images), width, depth)
    codes = torch.tensor(CODES)[torch.randint(len(CODES), size, generator=generator)]
    pick = torch.rand(size, generator=generator)
    strengths = torch.zeros(size)
    for op, values in STRENGTHS.items():
        values = WILD if wild else values
        drawn = torch.tensor(values)[(pick * len(values)).long()]
        strengths = torch.where(codes % NEAREST == op, drawn, strengths)
    if wild:
        codes = torch.randint(256, size, generator=generator)
    weights = torch.rand(len(images), width, generator=generator).exp()
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-3)
    keep = torch.rand(len(images), generator=generator)
    weights = weights * (1 - keep)[:, None] * (3 if wild else 1)
    return images, codes.to(torch.uint8), strengths, weights, keep


def same(op: Any, arguments: tuple[Tensor, ...], device: str) -> None:
    """Compare with the reference on the CPU, bits and layout."""
    expected = reference(*arguments)
    given = [value.to(device) for value in arguments]
    found = op.image_chains(*given)
    assert found.stride() == expected.stride()
    assert torch.equal(given[0].cpu(), arguments[0]), "images was changed"
    apart = (found.cpu().int() - expected.int()).abs()
    told = f"{int((apart > 0).sum())} of {apart.numel()} levels differ, by {apart.max()} at most"
    assert torch.equal(found.cpu(), expected), told


def check_code(code: int, shape: tuple[int, int, int], op: Any, device: str) -> None:
    """Apply one operation with each of its strengths."""
    same(op, single(pictures(shape), code), device)


def check_mixtures(
    shape: tuple[int, int, int],
    layout: torch.memory_format,
    sizes: tuple[int, int],
    wild: bool,
    op: Any,
    device: str,
) -> None:
    """Apply drawn chains; `sizes` are how many, and how long."""
    images, *others = mixtures(shape, *sizes, wild=wild)
    same(op, (images.contiguous(memory_format=layout), *others), device)


def check_no_rows(op: Any, device: str) -> None:
    """Check that no images are no images, and no launch."""
    images, *others = (value[:0] for value in mixtures((3, 8, 8), 2, 2))
    found = op.image_chains(images.to(device), *(value.to(device) for value in others))
    assert found.shape == (0, 3, 8, 8) and found.dtype == torch.uint8


def _name(code: int) -> str:
    return ImageOp(code % NEAREST).name.lower() + ("-nearest" if code >= NEAREST else "")


CASES: dict[str, Callable[[Any, str], None]] = {
    f"{_name(code)}-{kind}": partial(check_code, code, SHAPES[kind])
    for code in CODES
    for kind in ("odd", "narrow-grey")
}
CASES |= {
    f"mixture-{kind}-{layout}-{width}x{depth}": partial(
        check_mixtures, SHAPES[kind], LAYOUTS[layout], (width, depth), False
    )
    for kind in SHAPES
    for layout in LAYOUTS
    for width, depth in ((3, 3), (1, 2))
}
CASES |= {
    f"wild-{kind}": partial(check_mixtures, SHAPES[kind], torch.contiguous_format, (3, 3), True)
    for kind in ("odd", "narrow-grey", "one-pixel")
}
CASES |= {
    "no-chain": partial(check_mixtures, SHAPES["odd"], torch.channels_last, (0, 3), False),
    "no-operation": partial(check_mixtures, SHAPES["odd"], torch.contiguous_format, (2, 0), False),
    "no-rows": check_no_rows,
}

"""Check what holds for every corruption: the ten kinds for digits and the 15 + 4 common ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entprop_fast.lab.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from entprop_fast.lab.corruptions.common import (
    COMMON_KINDS,
    EXTRA_KINDS,
    SCALES,
    Scale,
    common_corruption,
    generate,
    to_bytes,
)
from entprop_fast.lab.data import load

Generator = Callable[..., Tensor]
COMMON = (*COMMON_KINDS, *EXTRA_KINDS)
KINDS: list[tuple[Generator, str]] = [
    *((corrupt, kind) for kind in CORRUPTIONS),
    *((common_corruption, kind) for kind in COMMON),
]
EVERY_KIND = pytest.mark.parametrize(
    ("generator", "kind"), KINDS, ids=[f"{made.__name__}-{kind}" for made, kind in KINDS]
)
DETERMINISTIC = {
    *("blur", "contrast", "brightness", "pixelate", "gaussian_blur", "saturate"),
    *("defocus_blur", "zoom_blur", "jpeg_compression"),
}


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """Smooth shapes with edges, fine grain and colour, as photographs have them."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(24, 3, 6, 6, generator=generator)
    fine = torch.rand(24, 3, 32, 32, generator=generator)
    large = torch.nn.functional.interpolate(coarse, (32, 32), mode="nearest")
    smooth = torch.nn.functional.interpolate(coarse.flip(0), (32, 32), mode="bicubic")
    mixed = 0.45 * large + 0.45 * smooth + 0.1 * fine
    return (mixed.clamp(0, 1) * 255).round() / 255


def resized(images: Tensor, height: int, width: int) -> Tensor:
    return torch.nn.functional.interpolate(images, (height, width), mode="bilinear")


def test_the_kinds_are_the_published_ones_in_their_order() -> None:
    assert len(CORRUPTIONS) == 10 and len(COMMON_KINDS) == 15 and len(EXTRA_KINDS) == 4
    assert COMMON_KINDS[::7] == ("gaussian_noise", "snow", "jpeg_compression")


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_severity_of_the_ten_kinds_is_further_from_clean(kind: str) -> None:
    """Those of the common kinds stand beside published figures, in test_moments.py."""
    digits = load("digits").test_images
    for images in (digits, resized(digits[:100], 32, 24)):
        made = (corrupt(images, kind, severity) for severity in SEVERITIES)
        found = [(one - images).square().mean().item() for one in made]
        assert 0 < found[0] and found == sorted(set(found)), found


@EVERY_KIND
def test_result_does_not_depend_on_the_batch(
    generator: Generator, kind: str, photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generator(photos, kind, 3, seed=5, first=100)
    parts = [
        generator(photos[start : start + size], kind, 3, seed=5, first=100 + start)
        for start, size in ((0, 1), (1, 6), (7, 17))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    monkeypatch.setattr(generate, "_CHUNK", 5 * photos[0].numel())
    again = generator(photos, kind, 3, seed=5, first=100)
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-6)
    if generator is common_corruption:
        assert torch.equal(to_bytes(torch.cat(parts)), to_bytes(whole))


@EVERY_KIND
def test_seed_severity_and_index_make_the_draw(
    generator: Generator, kind: str, photos: Tensor
) -> None:
    images = photos[:4]
    once = generator(images, kind, 2, seed=1)
    torch.manual_seed(99)
    assert torch.equal(generator(images, kind, 2, seed=1), once)
    others = [generator(images, kind, 2, seed=2), generator(images, kind, 2, seed=1, first=20)]
    assert [torch.equal(other, once) for other in others] == [kind in DETERMINISTIC] * 2


@EVERY_KIND
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_format_range_and_input_are_kept(
    generator: Generator, kind: str, dtype: torch.dtype
) -> None:
    images = torch.rand(3, 3, 9, 6).to(dtype).to(memory_format=torch.channels_last)
    before = images.clone()
    out = generator(images, kind, 5)
    like = images if generator is corrupt else images.contiguous()
    assert (out.dtype, out.shape, out.stride()) == (dtype, images.shape, like.stride())
    assert out.min() >= 0 and out.max() <= 1
    assert torch.equal(images, before)
    if generator is corrupt:
        truth = generator(images.double().contiguous(), kind, 5)
        tolerance = max(torch.finfo(dtype).eps, 2e-6)
        torch.testing.assert_close(out.double(), truth, rtol=0, atol=tolerance)


@settings(max_examples=90)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(SEVERITIES),
    st.sampled_from(SCALES),
    st.tuples(st.integers(0, 2), st.sampled_from((1, 3)), st.integers(1, 40), st.integers(1, 40)),
)
def test_any_size_gives_finite_images_in_range(
    which: tuple[Generator, str], severity: int, scale: Scale, shape: tuple[int, int, int, int]
) -> None:
    generator, kind = which
    more = {"scale": scale} if generator is common_corruption else {}
    if kind == "saturate":
        shape = (shape[0], 3, *shape[2:])
    for images in (torch.rand(shape), torch.zeros(shape), torch.ones(shape)):
        out = generator(images, kind, severity, **more)
        assert out.shape == shape
        assert ((out >= 0) & (out <= 1)).all()


@EVERY_KIND
def test_strided_and_expanded_images(generator: Generator, kind: str) -> None:
    wide = torch.rand(2, 3, 8, 16)
    dense = wide[..., ::2].contiguous()
    for odd in (wide[..., ::2], dense[:, :1].expand(2, 3, 8, 8), dense.transpose(2, 3)):
        torch.testing.assert_close(generator(odd, kind, 2), generator(odd.contiguous(), kind, 2))


def test_bytes_are_cut_off_but_for_rounding() -> None:
    levels = torch.arange(256)
    assert torch.equal(to_bytes(levels / 255), levels.to(torch.uint8))
    assert torch.equal(to_bytes(levels / 255 - 1e-7), levels.to(torch.uint8))
    between = torch.tensor([0.5, 0.999, 1.5]) / 255
    assert to_bytes(between).tolist() == [0, 1, 1]


def dotted(value: float) -> Tensor:
    images = torch.zeros(2, 3, 8, 8)
    images[1, 0, 2, 3] = value
    return images


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"kind": "gausian"}, ValueError, "corruption 'gausian'"),
    *(({"severity": severity}, ValueError, "severity") for severity in (0, 6, 2.0)),
    ({"first": -1}, ValueError, "first = -1"),
    ({"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, TypeError, r"images are torch\.uint8"),
    ({"images": torch.zeros(3, 8, 8)}, ValueError, r"images have shape \(3, 8, 8\)"),
    *(
        ({"images": dotted(value)}, ValueError, "images hold")
        for value in (-0.1, 1.1, float("nan"), float("inf"))
    ),
]
COMMON_BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"scale": "cifar"}, ValueError, "scale 'cifar'"),
    ({"images": torch.zeros(1, 2, 8, 8)}, ValueError, "images have 2 channels"),
    (
        {"images": torch.zeros(1, 1, 8, 8), "kind": "saturate"},
        ValueError,
        "images have 1 channels; saturate",
    ),
]


@pytest.mark.parametrize(
    ("generator", "changed", "error", "named"),
    [(made, *bad) for made in (corrupt, common_corruption) for bad in BAD]
    + [(common_corruption, *bad) for bad in COMMON_BAD],
)
def test_bad_arguments_are_named(
    generator: Generator, changed: dict[str, Any], error: type[Exception], named: str
) -> None:
    arguments = {"images": torch.zeros(1, 3, 8, 8), "kind": "contrast", "severity": 1}
    with pytest.raises(error, match=named):
        generator(**(arguments | changed))


@pytest.mark.gpu
@EVERY_KIND
def test_the_gpu_gives_the_cpus_images(generator: Generator, kind: str, photos: Tensor) -> None:
    on_gpu = generator(photos.cuda(), kind, 3, seed=1)
    assert on_gpu.is_cuda
    difference = (on_gpu.cpu() - generator(photos, kind, 3, seed=1)).abs()
    if generator is corrupt:
        assert difference.max() < 1e-5
    else:  # a threshold or a rounding may go the other way at single pixels
        assert (difference > 1e-4).float().mean() < 1e-3

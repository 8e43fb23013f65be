"""What holds for every common corruption."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import (
    COMMON_KINDS,
    EXTRA_KINDS,
    SCALES,
    Scale,
    common_corruption,
    generate,
    to_bytes,
)

KINDS = (*COMMON_KINDS, *EXTRA_KINDS)
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
DETERMINISTIC = {
    *("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"),
    *("gaussian_blur", "saturate"),
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


def test_the_kinds_are_the_published_ones_in_their_order() -> None:
    assert len(COMMON_KINDS) == 15 and len(EXTRA_KINDS) == 4
    assert COMMON_KINDS[::7] == ("gaussian_noise", "snow", "jpeg_compression")


# The published strengths are no ladder of distances everywhere. Elastic goes from wide slow warps
# to narrow fast ones, saturate lowers and then raises, glass repeats its sigmas:
NO_LADDER = {"elastic_transform", "saturate", "glass_blur"}
# Frost trades light for ice, water gives way to mud, cells of 32 pixels come out uneven:
ENDS_ONLY = {"frost", "spatter", "pixelate"}
# Neighbours differ by less than the draws of a few images:
NEARLY = {"motion_blur", "snow", "fog"}


@pytest.mark.parametrize("scale", SCALES)
@EVERY_KIND
def test_each_severity_is_further_from_clean(kind: str, scale: Scale, photos: Tensor) -> None:
    images = photos
    if scale == "imagenet-c":  # its blurs are wider than 32 pixels hold
        images = torch.nn.functional.interpolate(photos[:6], (96, 96), mode="bilinear")
    distances = [
        (common_corruption(images, kind, severity, scale=scale) - images).square().mean().item()
        for severity in SEVERITIES
    ]
    assert all(distance > 0 for distance in distances)
    if kind in NO_LADDER:
        return
    share = 0.0 if kind in ENDS_ONLY else 0.8 if kind in NEARLY else 1.0
    assert all(far > share * near for near, far in itertools.pairwise(distances)), distances
    assert distances[4] > 1.2 * distances[0]


@EVERY_KIND
def test_result_does_not_depend_on_the_batch(
    kind: str, photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = common_corruption(photos, kind, 3, seed=5, first=100)
    parts = [
        common_corruption(photos[start : start + size], kind, 3, seed=5, first=100 + start)
        for start, size in ((0, 1), (1, 6), (7, 17))
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    assert torch.equal(to_bytes(torch.cat(parts)), to_bytes(whole))
    monkeypatch.setattr(generate, "_CHUNK", 5 * photos[0].numel())
    again = common_corruption(photos, kind, 3, seed=5, first=100)
    torch.testing.assert_close(again, whole, rtol=0, atol=1e-6)


@EVERY_KIND
def test_seed_severity_and_index_make_the_draw(kind: str, photos: Tensor) -> None:
    images = photos[:4]
    once = common_corruption(images, kind, 2, seed=1)
    torch.manual_seed(99)
    assert torch.equal(common_corruption(images, kind, 2, seed=1), once)
    others = [
        common_corruption(images, kind, 2, seed=2),
        common_corruption(images, kind, 2, seed=1, first=20),
    ]
    assert [torch.equal(other, once) for other in others] == [kind in DETERMINISTIC] * 2


@EVERY_KIND
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_range_and_input_are_kept(kind: str, dtype: torch.dtype) -> None:
    images = torch.rand(2, 3, 9, 6).to(dtype).to(memory_format=torch.channels_last)
    before = images.clone()
    out = common_corruption(images, kind, 5)
    assert (out.dtype, out.shape, out.is_contiguous()) == (dtype, images.shape, True)
    assert out.min() >= 0 and out.max() <= 1
    assert torch.equal(images, before)


@settings(max_examples=60)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(SEVERITIES),
    st.sampled_from(SCALES),
    st.tuples(st.integers(0, 2), st.sampled_from((1, 3)), st.integers(1, 40), st.integers(1, 40)),
)
def test_any_size_gives_finite_images_in_range(
    kind: str, severity: int, scale: Scale, shape: tuple[int, int, int, int]
) -> None:
    if kind == "saturate":
        shape = (shape[0], 3, *shape[2:])
    for images in (torch.rand(shape), torch.zeros(shape), torch.ones(shape)):
        out = common_corruption(images, kind, severity, scale=scale)
        assert out.shape == shape
        assert ((out >= 0) & (out <= 1)).all()


def test_bytes_are_cut_off_but_for_rounding() -> None:
    levels = torch.arange(256)
    assert torch.equal(to_bytes(levels / 255), levels.to(torch.uint8))
    assert torch.equal(to_bytes(levels / 255 - 1e-7), levels.to(torch.uint8))
    between = torch.tensor([0.5, 0.999, 1.5]) / 255
    assert to_bytes(between).tolist() == [0, 1, 1]


BAD: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "unknown corruption 'snw'; nearest: snow": ({"kind": "snw"}, ValueError),
    "unknown scale 'cifar'; nearest: cifar-c": ({"scale": "cifar"}, ValueError),
    "severity = 6 must be one of": ({"severity": 6}, ValueError),
    "first = -1": ({"first": -1}, ValueError),
    "uint8": ({"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, TypeError),
    r"\(3, 8, 8\)": ({"images": torch.zeros(3, 8, 8)}, ValueError),
    "2 channels; snow wants 1 or 3": ({"images": torch.zeros(1, 2, 8, 8)}, ValueError),
    "1 channels; saturate wants 3": (
        {"images": torch.zeros(1, 1, 8, 8), "kind": "saturate"},
        ValueError,
    ),
    r"\[0, 1\] wanted": ({"images": torch.full((1, 3, 8, 8), 1.1)}, ValueError),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_named(message: str) -> None:
    changed, error = BAD[message]
    arguments: dict[str, Any] = {"images": torch.zeros(1, 3, 8, 8), "kind": "snow", "severity": 1}
    with pytest.raises(error, match=message):
        common_corruption(**(arguments | changed))


@pytest.mark.gpu
@EVERY_KIND
def test_the_gpu_gives_the_cpus_images(kind: str, photos: Tensor) -> None:
    on_gpu = common_corruption(photos.cuda(), kind, 3, seed=1)
    assert on_gpu.is_cuda
    difference = (on_gpu.cpu() - common_corruption(photos, kind, 3, seed=1)).abs()
    # A threshold or a rounding may go the other way at single pixels.
    assert (difference > 1e-4).float().mean() < 1e-3

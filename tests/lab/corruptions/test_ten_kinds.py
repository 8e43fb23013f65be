"""Check each of the ten kinds, and the warps below them, against an independent truth."""

from __future__ import annotations

import math

import pytest
import scipy.ndimage
import torch
from torch import Tensor

from entprop_fast.lab.corruptions import corrupt
from entprop_fast.lab.corruptions.filters import gaussian_blur, rotate, shift


def grey(*shape: int, value: float = 0.5) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


def test_gaussian_noise_has_the_moments_of_its_severity() -> None:
    # From the middle, noise of std 0.1 meets the clip at five sigma.
    noise = corrupt(grey(64, 3, 32, 32), "gaussian", 1) - 0.5
    count = noise.numel()
    assert abs(noise.mean().item()) < 5 * 0.1 / math.sqrt(count)
    assert noise.std().item() == pytest.approx(0.1, abs=5 * 0.1 / math.sqrt(2 * count))
    assert noise.pow(4).mean().item() == pytest.approx(3e-4, rel=0.02)
    across_images = torch.corrcoef(noise.flatten(1)) - torch.eye(64)
    assert across_images.abs().max() < 6 / math.sqrt(count / 64)


@pytest.mark.parametrize(("severity", "fraction"), [(1, 0.04), (5, 0.35)])
def test_impulse_replaces_its_fraction_by_black_and_white_evenly(
    severity: int, fraction: float
) -> None:
    out = corrupt(grey(64, 3, 32, 32), "impulse", severity)
    error = 5 * math.sqrt(fraction / out.numel())
    for value in (0, 1):
        assert (out == value).double().mean().item() == pytest.approx(fraction / 2, abs=error)
    assert ((out == 0) | (out == 0.5) | (out == 1)).all()


@pytest.mark.parametrize(("severity", "sigma"), [(1, 0.07), (5, 0.18)])
def test_blur_is_scipys(severity: int, sigma: float) -> None:
    images = torch.rand(2, 3, 12, 17, dtype=torch.float64)
    sigma *= 12
    truth = scipy.ndimage.gaussian_filter(
        images.numpy(), (0, 0, sigma, sigma), mode="nearest", radius=math.ceil(3 * sigma)
    )
    torch.testing.assert_close(corrupt(images, "blur", severity), torch.from_numpy(truth))


def test_contrast_shrinks_the_spread_and_keeps_the_mean() -> None:
    images = torch.rand(5, 3, 8, 9, dtype=torch.float64)
    out = corrupt(images, "contrast", 4)
    torch.testing.assert_close(out.mean((2, 3)), images.mean((2, 3)))
    torch.testing.assert_close(out.std((2, 3)), 0.2 * images.std((2, 3)))


def test_brightness_adds_and_clips() -> None:
    images = torch.tensor([0.0, 0.3, 0.65, 0.9]).view(1, 1, 2, 2)
    expected = torch.tensor([0.4, 0.7, 1.0, 1.0]).view(1, 1, 2, 2)
    torch.testing.assert_close(corrupt(images, "brightness", 4), expected)


def test_rotate_is_scipys_one_way_or_the_other() -> None:
    images = torch.rand(12, 1, 15, 15, dtype=torch.float64)
    out = corrupt(images, "rotate", 3)
    inside = slice(4, 11)  # Within it no source lies at the edge, which scipy treats otherwise.
    turns = []
    for before, after in zip(images[:, 0], out[:, 0], strict=True):
        truths = {
            degrees: torch.from_numpy(
                scipy.ndimage.rotate(before.numpy(), degrees, reshape=False, order=1)
            )
            for degrees in (-24, 24)
        }
        close = [
            degrees
            for degrees, truth in truths.items()
            if torch.allclose(after[inside, inside], truth[inside, inside], atol=1e-6)
        ]
        assert len(close) == 1
        turns += close
    assert set(turns) == {-24, 24}


def test_occlusion_covers_exactly_its_share_with_grey() -> None:
    images = torch.zeros(200, 2, 11, 14, dtype=torch.float64)
    out = corrupt(images, "occlude", 4)
    torch.testing.assert_close(out.mean((1, 2, 3)), torch.full((200,), 0.5 * 0.55**2).double())
    assert torch.equal(out[:, 0], out[:, 1])
    # One rectangle: rows times columns. Its place differs, and reaches every pixel.
    rows, columns = out[:, 0].amax(2, keepdim=True), out[:, 0].amax(1, keepdim=True)
    torch.testing.assert_close(out[:, 0], rows * columns / 0.5)
    assert len(out.flatten(1).unique(dim=0)) == 200
    assert (out.amax(0) > 0.1).all()


@pytest.mark.parametrize(("severity", "rows", "columns"), [(4, 4, 6), (3, 5, 8)])
def test_pixelate_is_block_means_on_a_finer_grid(severity: int, rows: int, columns: int) -> None:
    """8 pixels in 5 cells: on a grid of 40, cells of 8 and pixels of 5 both fit."""
    images = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    fine = images.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    cells = fine.unfold(2, 8, 8).unfold(3, 12, 12).mean((4, 5))
    coarse = cells.repeat_interleave(8, 2).repeat_interleave(12, 3)
    expected = coarse.unfold(2, rows, rows).unfold(3, columns, columns).mean((4, 5))
    torch.testing.assert_close(corrupt(images, "pixelate", severity), expected)


def test_elastic_moves_pixels_by_its_amplitude() -> None:
    # A ramp shows the displacement: one pixel is 1/64.
    side = 64
    ramp = torch.arange(side, dtype=torch.float64) / side
    images = torch.stack((ramp.expand(side, side), ramp[:, None].expand(side, side)))
    out = corrupt(images.expand(50, 2, side, side), "elastic", 1)
    inside = slice(16, 48)
    moved = ((out - images) * side)[:, :, inside, inside]
    amplitude = 0.03 * side
    assert moved.square().sum(1).mean().sqrt().item() == pytest.approx(amplitude, rel=0.1)
    assert abs(moved.mean().item()) < 0.2 * amplitude
    # Smooth: neighbours move alike.
    assert moved.diff(dim=3).square().mean().sqrt() < 0.15 * amplitude


@pytest.mark.parametrize("side", [2, 7, 8])
def test_quarter_turns_are_rot90_each_image_by_its_own(side: int) -> None:
    images = torch.rand(4, 2, side, side, dtype=torch.float64)
    turned = rotate(images, torch.arange(-1, 3).double() * (math.pi / 2))
    for quarters, image, made in zip(range(-1, 3), images, turned, strict=True):
        torch.testing.assert_close(made, torch.rot90(image, quarters, (1, 2)))


def test_whole_pixel_shifts_are_slices_and_half_ones_means() -> None:
    images = torch.rand(3, 3, 6, 9, dtype=torch.float64)
    moved = shift(images, right=torch.tensor([2.0, -3.0, 0.5]), down=torch.tensor([1.0, 0.0, 0.0]))
    expected = torch.zeros_like(images)
    expected[0, :, 1:, 2:] = images[0, :, :-1, :-2]
    expected[1, :, :, :-3] = images[1, :, :, 3:]
    expected[2] = images[2] / 2
    expected[2, ..., 1:] += images[2, ..., :-1] / 2
    torch.testing.assert_close(moved, expected)


def test_blur_wider_than_the_image_is_scipys() -> None:
    images = torch.rand(2, 1, 3, 5, dtype=torch.float64)
    truth = scipy.ndimage.gaussian_filter(
        images.numpy(), (0, 0, 4.0, 4.0), mode="nearest", radius=12
    )
    torch.testing.assert_close(gaussian_blur(images, 4.0), torch.from_numpy(truth))

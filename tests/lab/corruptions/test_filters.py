"""Check warps in the cases that have a closed form, and smoothing wider than the image."""

from __future__ import annotations

import math

import pytest
import scipy.ndimage
import torch

from entprop_fast.lab.corruptions.filters import gaussian_blur, rotate, shift


@pytest.mark.parametrize("side", [2, 7, 8])
@pytest.mark.parametrize("quarters", [1, 2, -1])
def test_quarter_turns_are_rot90(side: int, quarters: int) -> None:
    images = torch.rand(3, 2, side, side, dtype=torch.float64)
    turned = rotate(images, torch.full((3,), quarters * math.pi / 2, dtype=torch.float64))
    torch.testing.assert_close(turned, torch.rot90(images, quarters, (2, 3)))


def test_each_image_turns_by_its_own_angle() -> None:
    images = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    turned = rotate(images, torch.tensor([0, math.pi], dtype=torch.float64))
    torch.testing.assert_close(turned[0], images[0])
    torch.testing.assert_close(turned[1], images[1].flip(1, 2))


def test_whole_pixel_shifts_are_slices() -> None:
    images = torch.rand(2, 3, 6, 9, dtype=torch.float64)
    moved = shift(images, right=torch.tensor([2.0, -3.0]), down=torch.tensor([1.0, 0.0]))
    expected = torch.zeros_like(images)
    expected[0, :, 1:, 2:] = images[0, :, :-1, :-2]
    expected[1, :, :, :-3] = images[1, :, :, 3:]
    torch.testing.assert_close(moved, expected)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    images = torch.rand(1, 1, 4, 5, dtype=torch.float64)
    moved = shift(images, right=torch.tensor([0.5]), down=torch.tensor([0.0]))
    torch.testing.assert_close(moved[..., 1:], (images[..., 1:] + images[..., :-1]) / 2)


def test_blur_wider_than_the_image_is_scipys() -> None:
    images = torch.rand(2, 1, 3, 5, dtype=torch.float64)
    truth = scipy.ndimage.gaussian_filter(
        images.numpy(), (0, 0, 4.0, 4.0), mode="nearest", radius=12
    )
    torch.testing.assert_close(gaussian_blur(images, 4.0), torch.from_numpy(truth))

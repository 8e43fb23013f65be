"""Check warps in the cases that have a closed form, and smoothing wider than the image."""

from __future__ import annotations

import math

import pytest
import scipy.ndimage
import torch

from entprop_fast.lab.corruptions.filters import gaussian_blur, rotate, shift


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

"""Check that pixel values become torchvision's, to float and normalised."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torchvision.transforms import functional as torchvision

from entprop_fast.lab.data.image_values import Normalize, to_float


def test_to_float_is_torchvisions_bit_for_bit() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    truth = torchvision.to_tensor(images[0].permute(1, 2, 0).numpy())
    assert torch.equal(to_float(images)[0], truth)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        floats = torch.rand(2, 3, 4, 4).to(dtype)
        assert to_float(floats) is floats


def test_normalize_is_torchvisions() -> None:
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    images = torch.rand(5, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    normalized = Normalize(mean, std, "cpu")(images)
    assert normalized.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(normalized, torchvision.normalize(images, list(mean), list(std)))
    assert Normalize(mean, std, "cpu")(images.half()).dtype == torch.float16


REFUSED: dict[str, Callable[[], object]] = {
    r"images are torch\.int64": lambda: to_float(torch.zeros(1, 3, 4, 4).long()),
    r"mean \(0.5,\) and std \(0.5, 0.5\)": lambda: Normalize((0.5,), (0.5, 0.5), "cpu"),
    r"mean \(0.5,\) and std \(0.0,\)": lambda: Normalize((0.5,), (0.0,), "cpu"),
}


@pytest.mark.parametrize("named", REFUSED)
def test_refusals(named: str) -> None:
    with pytest.raises(ValueError, match=named):
        REFUSED[named]()

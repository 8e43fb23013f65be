"""Check crop and flip against NumPy, image by image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from entprop_fast.augment import CropFlip, parse_chain
from entprop_fast.augment.crop_flip import Moves
from entprop_fast.counter_random import row_keys

CPU = torch.device("cpu")
MODES = {"zero": "constant", "reflect": "reflect"}  # NumPy's names


def by_hand(image: Tensor, augment: CropFlip, top: int, left: int, flipped: int) -> Tensor:
    """One image: pad, cut, mirror."""
    p = augment.padding
    height, width = image.shape[1:]
    mode: Any = MODES[augment.padding_mode]
    padded = np.pad(image.numpy(), ((0, 0), (p, p), (p, p)), mode=mode)
    crop = padded[:, top : top + height, left : left + width]
    return torch.from_numpy((crop[:, :, ::-1] if flipped else crop).copy())


def pictures(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    images = torch.randint(1, 256, shape)  # no zero: padding shows
    return images.to(dtype) if dtype == torch.uint8 else (images / 255).to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("shape", "padding"),
    [((40, 3, 8, 8), 4), ((40, 1, 9, 5), 2), ((9, 2, 4, 13), 1), ((9, 3, 6, 7), 0)],
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("flip", [True, False])
def test_images_one_by_one(
    dtype: torch.dtype,
    layout: torch.memory_format,
    shape: tuple[int, ...],
    padding: int,
    mode: Any,
    flip: bool,
) -> None:
    augment = CropFlip(padding=padding, padding_mode=mode, flip=flip)
    images = pictures(shape, dtype).contiguous(memory_format=layout)
    before = images.clone()
    rows = torch.randperm(len(images))[: len(images) - 2]
    moves = augment.draw(row_keys(5, 0, len(rows), CPU))
    moved = augment.gather(images, rows, moves)
    assert moved.dtype == dtype and moved.is_contiguous(memory_format=torch.channels_last)
    for row, image, *move in zip(rows, moved, *moves, strict=True):
        assert torch.equal(image, by_hand(images[row], augment, *map(int, move)))
    assert torch.equal(images, before)


def test_padding_is_zero_beside_a_nan() -> None:
    images = torch.full((1, 1, 4, 4), torch.nan)
    moves = Moves(torch.tensor([0]), torch.tensor([0]), torch.tensor([0]))
    moved = CropFlip(padding=2).gather(images, torch.tensor([0]), moves)[0, 0]
    assert moved[2:, 2:].isnan().all()
    assert (moved[:2] == 0).all() and (moved[:, :2] == 0).all()


def test_draws_are_even_and_independent() -> None:
    moves = CropFlip(padding=1).draw(row_keys(1, 0, 18_000, CPU))
    cells = moves.top * 6 + moves.left * 2 + moves.flipped
    counts = torch.bincount(cells, minlength=18).double()
    # Chi squared with 17 degrees of freedom: 99.9 % lie below 40.8.
    assert len(counts) == 18 and ((counts - 1000).square() / 1000).sum() < 40.8


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_alone_it_moves_all_images_and_keeps_their_layout(
    dtype: torch.dtype, layout: torch.memory_format
) -> None:
    augment = CropFlip(padding=2)
    images = pictures((7, 3, 6, 5), dtype).contiguous(memory_format=layout)
    ids = torch.tensor([5, 9, 0, 2, 7, 7, 1])
    moved = augment(images, ids, epoch=3)
    assert moved.stride() == images.stride()
    for row in range(7):  # whatever the batch
        one = augment(images[row : row + 1], ids[row : row + 1], epoch=3)
        assert torch.equal(one[0], moved[row])
    assert torch.equal(parse_chain("crop-flip:padding=2")(images, ids, epoch=3), moved)


def reflected(padding: int, *shape: int) -> Tensor:
    augment = CropFlip(padding=padding, padding_mode="reflect")
    return augment.gather(
        torch.rand(shape), torch.tensor([0]), augment.draw(row_keys(0, 0, 1, CPU))
    )


REFUSED: dict[str, Callable[[], object]] = {
    "padding=-1": lambda: CropFlip(padding=-1),
    "padding_mode 'zeros'": lambda: CropFlip(padding_mode="zeros"),  # type: ignore[arg-type]
    "padding=4 .* 9x4: at most 3": lambda: reflected(4, 1, 3, 9, 4),
}


@pytest.mark.parametrize("named", REFUSED)
def test_refusals(named: str) -> None:
    with pytest.raises(ValueError, match=named):
        REFUSED[named]()

"""AugMix, TrivialAugment and RandAugment: an image's result is its key's, in any batch."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from entprop_fast.augment import (
    Augmentation,
    AugMix,
    Chain,
    PixMix,
    RandAugment,
    TrivialAugment,
)
from entprop_fast.augment.drawn_chains import ChainDraws, DrawnChains

ALL = [AugMix(all_ops=True), AugMix(alpha=0.5, depth=2, width=2), TrivialAugment(), RandAugment()]
every = pytest.mark.parametrize("augment", ALL, ids=lambda one: f"{one.name}-{one == ALL[1]}")


def images(channels: int = 3, rows: int = 24) -> Tensor:
    return torch.randint(0, 256, (rows, channels, 11, 9), dtype=torch.uint8)


@every
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_does_not_depend_on_its_batch(augment: DrawnChains, channels: int) -> None:
    batch, ids = images(channels), torch.arange(100, 124)
    together = augment(batch, ids, epoch=2)
    assert together.dtype == torch.uint8 and together.shape == batch.shape
    assert (together != batch).flatten(1).any(1).float().mean() > 0.5
    order = torch.randperm(24)
    assert torch.equal(augment(batch[order], ids[order], epoch=2), together[order])
    for row in (0, 13):
        one = slice(row, row + 1)
        assert torch.equal(augment(batch[one], ids[one], epoch=2), together[one])
    assert not torch.equal(augment(batch, ids, epoch=3), together)
    assert augment(batch[:0]).shape == batch[:0].shape


@every
def test_floating_images_are_changed_on_256_levels(augment: DrawnChains) -> None:
    batch, ids = images(), torch.arange(24)
    expected = augment(batch, ids)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        if dtype == torch.bfloat16:  # holds no more than half of the levels
            given = (batch // 2).to(dtype) / 127.5
            levels = (given.float() * 255 + 0.5).floor().to(torch.uint8)
            expected = augment(levels, ids)
        else:
            given = (batch.double() / 255).to(dtype)
        found = augment(given, ids)
        assert found.dtype == dtype
        torch.testing.assert_close(found, (expected.double() / 255).to(dtype))


@every
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_layouts(augment: DrawnChains, dtype: torch.dtype) -> None:
    batch = images() if dtype == torch.uint8 else torch.rand(24, 3, 11, 9)
    ids = torch.arange(24)
    expected = augment(batch, ids)
    assert expected.is_contiguous()
    last = augment(batch.contiguous(memory_format=torch.channels_last), ids)
    assert last.is_contiguous(memory_format=torch.channels_last)
    strided = augment(torch.stack([batch, batch], dim=4)[..., 1], ids)
    assert torch.equal(last, expected) and torch.equal(strided, expected)


@every
def test_images_are_left_as_they_are(augment: DrawnChains) -> None:
    batch = images()
    before = batch.clone()
    augment(batch)
    assert torch.equal(batch, before)


@every
def test_the_host_decides_nothing(augment: DrawnChains) -> None:
    """Tensors without values go all the way: nothing asks for one."""
    with FakeTensorMode():
        batch = torch.empty(4, 3, 8, 8, dtype=torch.uint8)
        assert augment(batch).shape == batch.shape


def test_parts_of_a_chain_draw_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What TrivialAugment draws as second says nothing of AugMix's weights, in any stream."""
    seen: list[ChainDraws] = []

    def only_draw(self: DrawnChains, images: Tensor, keys: Tensor) -> Tensor:
        seen.append(self.draw(keys, (9, 9)))
        return images

    monkeypatch.setattr(DrawnChains, "apply", only_draw)
    batch = torch.zeros(4000, 1, 9, 9, dtype=torch.uint8)
    Chain(parts=(AugMix(), TrivialAugment()))(batch, torch.arange(4000))
    mixed, single = seen
    kinds = single.codes.flatten() % 64
    drawn = torch.cat([mixed.weights, mixed.keep[:, None], mixed.strengths.flatten(1)], 1)
    together = torch.corrcoef(torch.cat([kinds[:, None].float(), drawn], 1).T)[0, 1:]
    assert together.abs().max() < 5 / 4000**0.5


@pytest.mark.parametrize("augment", [AugMix(), PixMix(pictures=8)])
def test_values_beyond_the_range_do_not_wrap_around(augment: Augmentation) -> None:
    """Where nobody looks at values, as on CUDA, white that is a little too bright stays white."""
    bright = torch.full((64, 3, 8, 8), 1.3)
    keys = torch.arange(64) * 7919
    levels = augment.apply(torch.full_like(bright, 255).to(torch.uint8), keys).float() / 255
    found = augment.apply(bright, keys).clamp(0, 1)
    assert (found - levels).abs().median() < 0.02

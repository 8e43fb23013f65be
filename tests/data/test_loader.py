"""Order, coverage, resuming and refusals of the loader."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entprop_fast.data import DeviceLoader


def loader(
    count: int = 50, batch_size: int = 8, *, seed: int = 0, drop_last: bool = False
) -> DeviceLoader:
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 3, 2, 2)
    labels = torch.arange(count)
    return DeviceLoader(images, labels, batch_size, seed=seed, drop_last=drop_last, device="cpu")


def order(batches: DeviceLoader, epoch: int, start: int = 0) -> list[int]:
    return [int(label) for _, labels in batches.epoch(epoch, start) for label in labels]


@given(st.integers(1, 40), st.integers(1, 50), st.booleans())
def test_every_image_once_an_epoch_in_batches_of_the_size(
    count: int, batch_size: int, drop_last: bool
) -> None:
    if drop_last and count < batch_size:
        return
    batches = loader(count, batch_size, drop_last=drop_last)
    sizes = [len(labels) for _, labels in batches.epoch(0)]
    seen = order(batches, 0)
    assert len(sizes) == len(batches)
    assert all(size == batch_size for size in sizes[:-1]) and 0 < sizes[-1] <= batch_size
    assert len(set(seen)) == len(seen) == (count // batch_size * batch_size if drop_last else count)


def test_images_stay_with_their_labels() -> None:
    for images, labels in loader().epoch(3):
        assert torch.equal(images[:, 1, 1, 0], labels.float())


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    batches = loader()
    first = order(batches, 0)
    torch.manual_seed(123)
    assert order(batches, 5) != first
    assert order(batches, 0) == first == order(loader(), 0)
    assert len({tuple(order(loader(seed=s), e)) for s in range(4) for e in range(4)}) == 16
    assert first != sorted(first)


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    order(loader(), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_places_in_the_epoch_are_even() -> None:
    places = torch.tensor([order(loader(10), epoch).index(0) for epoch in range(2000)])
    counts = torch.bincount(places, minlength=10).double()
    # Chi squared with 9 degrees of freedom: 99.9 % lie below 27.9.
    assert ((counts - 200).square() / 200).sum() < 27.9


def test_resuming_gives_the_rest_of_the_epoch() -> None:
    batches = loader()
    whole = order(batches, 2)
    for start in range(len(batches) + 1):
        assert order(batches, 2, start) == whole[8 * start :]


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_last_is_kept(channels: int) -> None:
    images = torch.rand(9, channels, 4, 4).to(memory_format=torch.channels_last)
    batches = DeviceLoader(images, torch.zeros(9).long(), 4, seed=0, drop_last=True, device="cpu")
    batch, _ = next(batches.epoch(0))
    assert batch.stride() == images.stride()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="batch_size = 0 must be at least 1"):
        loader(batch_size=0)
    with pytest.raises(ValueError, match="batch_size = 8 with drop_last leaves no batch of 7"):
        loader(7, 8, drop_last=True)
    with pytest.raises(ValueError, match="images is empty"):
        loader(0)
    with pytest.raises(ValueError, match="3 images but 2 labels"):
        DeviceLoader(
            torch.rand(3, 1, 2, 2), torch.zeros(2), 1, seed=0, drop_last=False, device="cpu"
        )
    with pytest.raises(ValueError, match="epoch = -1"):
        loader().epoch(-1)
    for start in (-1, 8):
        with pytest.raises(ValueError, match=f"start = {start} must be between 0 and 7"):
            loader().epoch(0, start)

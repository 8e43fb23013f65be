"""Check order, coverage, augmentation, resuming and refusals of the loader."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import TensorDataset

from entprop_fast.augment import CropFlip
from entprop_fast.counter_random import fold, keys_of
from entprop_fast.lab.data import DeviceLoader, Loader, PrefetchLoader, to_float
from entprop_fast.lab.data.image_values import Normalize
from tests.methods.test_no_sync import NoSynchronisation

AUGMENT = CropFlip(padding=2)
NORMALIZE = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
SETTINGS: dict[str, Any] = {"seed": 0, "drop_last": False, "device": "cpu"}


def loader(count: int = 50, batch_size: int = 8, **changed: Any) -> DeviceLoader:
    """Images full of their number, which is their label too."""
    images = torch.arange(count).float().view(-1, 1, 1, 1).expand(count, 3, 2, 2)
    return DeviceLoader(images, torch.arange(count), batch_size, **(SETTINGS | changed))


def photos(count: int = 50, batch_size: int = 8, **changed: Any) -> DeviceLoader:
    """Bytes, each image another, whose label is its number."""
    images = torch.randint(256, (count, 3, 7, 5), generator=torch.Generator().manual_seed(9))
    settings = SETTINGS | {"augment": AUGMENT, "normalize": NORMALIZE} | changed
    return DeviceLoader(images.to(torch.uint8), torch.arange(count), batch_size, **settings)


def order(batches: DeviceLoader, epoch: int, start: int = 0) -> list[int]:
    return [int(label) for _, labels in batches.epoch(epoch, start) for label in labels]


def by_label(batches: DeviceLoader, epoch: int) -> dict[int, Tensor]:
    return {
        int(label): image
        for images, labels in batches.epoch(epoch)
        for image, label in zip(images, labels, strict=True)
    }


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


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (0, 5), (3, 0)])
def test_order_is_a_function_of_seed_and_epoch_alone(seed: int, epoch: int) -> None:
    batches, state = loader(seed=seed), torch.get_rng_state()
    generator = torch.Generator().manual_seed(fold((seed, epoch)))
    assert order(batches, epoch) == torch.randperm(50, generator=generator).tolist()
    assert torch.equal(torch.get_rng_state(), state)
    for images, labels in batches.epoch(epoch):
        assert torch.equal(images[:, 1, 1, 0], labels.float())


def test_bytes_become_floats_in_channels_last() -> None:
    batches = photos(augment=None)
    assert batches.images.dtype == torch.uint8
    mean, std = (torch.tensor(one).double().view(3, 1, 1) for one in NORMALIZE)
    for images, labels in batches.epoch(1):
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        truth = (batches.images[labels].double() / 255 - mean) / std
        torch.testing.assert_close(images.double(), truth, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("seed", "batch_size"), [(0, 8), (2, 13)])
def test_every_image_is_moved_by_its_own_draws(seed: int, batch_size: int) -> None:
    """Of seed, epoch and image alone; padded before it is normalised."""
    batches = photos(200, batch_size, seed=seed)
    keys = keys_of(fold((seed, 3, 1)), torch.arange(200))
    moved = to_float(AUGMENT.apply(batches.images, keys))
    truth = Normalize(*NORMALIZE, "cpu")(moved)
    for label, image in by_label(batches, 3).items():
        assert torch.equal(image, truth[label])


def test_resuming_gives_the_same_augmented_batches() -> None:
    whole = list(photos().epoch(2))
    for start in range(len(whole) + 1):
        rest = list(photos().epoch(2, start))
        assert len(rest) == len(whole) - start
        for (images, labels), (kept, truth) in zip(rest, whole[start:], strict=True):
            assert torch.equal(images, kept) and torch.equal(labels, truth)


def test_first_is_neither_shuffled_nor_augmented() -> None:
    images, labels = photos().first(5)
    whole, _ = photos().first(1000)
    assert labels.tolist() == [0, 1, 2, 3, 4] and len(whole) == 50
    assert torch.equal(images, whole[:5])
    plain = by_label(photos(augment=None), 0)
    assert all(torch.equal(whole[label], image) for label, image in plain.items())


def test_a_batch_does_not_synchronise() -> None:
    batches = photos().epoch(0)
    next(batches)  # what an epoch's start does on the host is done
    with NoSynchronisation():  # type: ignore[no-untyped-call]
        assert len(list(batches)) == 6


@pytest.mark.gpu
@pytest.mark.parametrize("augment", [None, AUGMENT, CropFlip(padding=2, padding_mode="reflect")])
def test_the_gpu_gives_the_cpus_batches_without_waiting(augment: CropFlip | None) -> None:
    host, device = photos(augment=augment), photos(augment=augment, device="cuda")
    list(device.epoch(0))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(device.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (images, labels), (truth, kept) in zip(batches, host.epoch(1), strict=True):
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(labels.cpu(), kept)
        torch.testing.assert_close(images.cpu(), truth, rtol=1e-6, atol=1e-6)


def of(images: Tensor, labels: Tensor) -> DeviceLoader:
    return DeviceLoader(images, labels, 1, **SETTINGS)


REFUSED: dict[str, Callable[[], object]] = {
    "batch_size = 0": lambda: loader(batch_size=0),
    "batch_size = 8 with drop_last": lambda: loader(7, 8, drop_last=True),
    "images is empty": lambda: loader(0),
    "3 images but 2 labels": lambda: of(torch.rand(3, 1, 2, 2), torch.zeros(2)),
    r"images are torch\.int32": lambda: of(torch.zeros(3, 1, 2, 2).int(), torch.zeros(3)).first(1),
    "epoch = -1": lambda: loader().epoch(-1),
    "start = -1": lambda: loader().epoch(0, -1),
    "start = 8": lambda: loader().epoch(0, 8),
}


@pytest.mark.parametrize("named", REFUSED)
def test_refusals(named: str) -> None:
    with pytest.raises(ValueError, match=named):
        REFUSED[named]()


@pytest.mark.parametrize("world", [1, 2, 4, 5])
@pytest.mark.parametrize("kind", [DeviceLoader, PrefetchLoader])
def test_processes_deal_each_batch_out(world: int, kind: type[Loader]) -> None:
    """Rank r has rows r::world of every batch, bit for bit; of the last one perhaps none."""
    whole = photos(43, 8)  # the last batch has 3 rows
    images, labels = whole.images, whole.labels

    def of_rank(rank: int) -> Loader:
        settings = SETTINGS | {"augment": AUGMENT, "normalize": NORMALIZE}
        settings |= {"rank": rank, "world": world}
        if kind is DeviceLoader:
            return DeviceLoader(images, labels, 8, **settings)
        return PrefetchLoader(TensorDataset(images, labels), 8, workers=0, **settings)

    ranks = [of_rank(rank) for rank in range(world)]
    assert {len(one) for one in ranks} == {len(whole)} and ranks[0].fewest == 3 // world
    for epoch, start in ((0, 0), (1, 2)):
        of_ranks = [list(one.epoch(epoch, start)) for one in ranks]
        for step, (expected, wanted) in enumerate(whole.epoch(epoch, start)):
            for rank, batches in enumerate(of_ranks):
                made, found = batches[step]
                assert found.equal(wanted[rank::world])
                assert made.equal(expected[rank::world])
    with pytest.raises(ValueError, match=f"rank = {world}"):
        loader(rank=world, world=world)

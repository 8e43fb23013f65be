"""Chains in loaders: by an image's key alone, whatever the loader; three views in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from entprop_fast.augment import Chain, CropFlip
from entprop_fast.counter_random import fold, keys_of
from entprop_fast.lab.data import Loader, create_loader, to_float
from entprop_fast.lab.data.augmented_batches import BatchAugmenter
from entprop_fast.lab.data.given_loader import GivenLoader
from tests.augment.tiny import Darker

SETTINGS: dict[str, Any] = {"seed": 4, "drop_last": False, "device": "cpu"}
CROP, DARKER = CropFlip(padding=1), Darker()
CHAIN = Chain(parts=(CROP, DARKER))
IMAGES = torch.randint(
    256, (11, 3, 6, 5), generator=torch.Generator().manual_seed(2), dtype=torch.uint8
)
NUMBERS = torch.arange(len(IMAGES))
KEYS = keys_of(fold((4, 2, 1)), NUMBERS)  # of epoch 2


def loader(kind: str = "device", **changed: Any) -> Loader:
    workers = 0 if kind == "prefetch" else None
    options = SETTINGS | {"augment": CHAIN} | changed
    return create_loader(kind, (IMAGES, NUMBERS), 4, workers=workers, **options)


def seen(batches: Loader, start: int = 0) -> dict[int, Tensor]:
    """Every view of each image, [views, C, H, W], by its number."""
    found: dict[int, Tensor] = {}
    for images, labels in batches.epoch(2, start):
        views = images.unflatten(0, (-1, len(labels)))
        found |= {int(label): views[:, row] for row, label in enumerate(labels)}
    return found


def one_by_one(views: int) -> dict[int, Tensor]:
    """The contract, image by image."""
    found: dict[int, Tensor] = {}
    for number in range(len(IMAGES)):
        image, key = IMAGES[number : number + 1], KEYS[number : number + 1]
        as_it_is = CROP.apply(image, key)
        if views == 1:
            made = [DARKER.apply(as_it_is, keys_of(fold((1, 1)), key))]  # part 1 of a chain
        else:
            made = [as_it_is, *(DARKER.apply(as_it_is, keys_of(v, key)) for v in (1, 2))]
        found[number] = to_float(torch.cat(made))
    return found


def same(found: dict[int, Tensor], truth: dict[int, Tensor]) -> bool:
    return found.keys() <= truth.keys() and all(torch.equal(v, truth[k]) for k, v in found.items())


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("kind", ["device", "prefetch"])
def test_loader_kind_batch_start_and_processes_change_no_image(kind: str, views: int) -> None:
    truth = one_by_one(views)
    whole = seen(loader(kind, views=views))
    assert same(whole, truth) and whole.keys() == truth.keys()
    later = seen(loader(kind, views=views), start=2)
    assert same(later, truth) and len(later) == 3
    shared = [seen(loader(kind, views=views, rank=rank, world=2)) for rank in range(2)]
    assert all(same(one, truth) for one in shared) and len(shared[0] | shared[1]) == 11


@pytest.mark.parametrize("kind", ["device", "prefetch"])
def test_what_is_evaluated_is_not_augmented(kind: str) -> None:
    images, labels = loader(kind, views=3).first(7)
    assert torch.equal(images, to_float(IMAGES[:7])) and labels.tolist() == list(range(7))


def test_a_batch_is_normalised_after_it_was_augmented() -> None:
    plain, normalised = (seen(loader(normalize=n)) for n in (None, ((0.5,) * 3, (0.2,) * 3)))
    assert all(torch.allclose(normalised[n], (plain[n] - 0.5) / 0.2) for n in plain)


def test_a_chain_without_a_crop_and_one_that_is_given_floats() -> None:
    found = seen(loader(augment=DARKER, views=3))
    assert torch.equal(found[3][0], to_float(IMAGES[3]))
    assert not torch.equal(found[3][1], found[3][2])
    floats = create_loader("device", (to_float(IMAGES), NUMBERS), 4, augment=CHAIN, **SETTINGS)
    truth = one_by_one(1)
    assert all(
        (image - truth[number]).abs().max() <= 1 / 255 for number, image in seen(floats).items()
    )


def test_a_dataloader_draws_by_the_place_in_the_epoch() -> None:
    def given(start: int = 0, **changed: Any) -> list[Tensor]:
        data = DataLoader(TensorDataset(IMAGES, NUMBERS), 4)
        options = SETTINGS | {"augment": CHAIN, "views": 3} | changed
        batches = GivenLoader(data, check=lambda *_: None, **options)
        assert torch.equal(batches.first(3)[0], to_float(IMAGES[:3]))
        return [images for images, _ in batches.epoch(2, start)]

    truth = one_by_one(3)
    batches = given()
    assert torch.equal(batches[1], torch.stack([truth[n] for n in range(4, 8)], 1).flatten(0, 1))
    assert all(torch.equal(*both) for both in zip(given(start=1), batches[1:], strict=True))
    assert not torch.equal(given(of=1)[0], batches[0])  # another process's


FOUR = torch.zeros(2, 4, 5, 5)
REFUSED: dict[str, Callable[[], object]] = {
    "views=2": lambda: BatchAugmenter(CHAIN, 2),
    "--augment crop-flip": lambda: loader(augment=CROP, views=3),
    "3 views": lambda: loader(augment=None, views=3),
    "4 channels: darker": lambda: BatchAugmenter(CHAIN)(
        FOUR, None, BatchAugmenter(CHAIN).draw(0, 0, torch.arange(2))
    ),
}


@pytest.mark.parametrize("named", REFUSED)
def test_refusals(named: str) -> None:
    with pytest.raises(ValueError, match=named):
        REFUSED[named]()
    moved = BatchAugmenter(CROP)(FOUR, None, BatchAugmenter(CROP).draw(0, 0, torch.arange(2)))
    assert moved.shape == FOUR.shape  # moves take any number of channels

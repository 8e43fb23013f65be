"""Check the loader that reads ahead: DeviceLoader's batches, seeded transforms, named errors."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from entprop_fast.augment import CropFlip
from entprop_fast.lab.data import (
    DeviceLoader,
    Loader,
    PrefetchLoader,
    UnreadableImage,
    choose_loader,
    create_loader,
    prefetch,
)
from entprop_fast.lab.data.loader import Batch

SETTINGS: dict[str, Any] = {
    "seed": 3,
    "device": "cpu",
    "augment": CropFlip(padding=1),
    "normalize": ((0.4, 0.5, 0.6), (0.2, 0.3, 0.1)),
}
WORKERS = pytest.mark.parametrize("workers", [0, 2])


def memory(count: int = 22) -> tuple[Tensor, Tensor]:
    images = torch.randint(256, (count, 3, 5, 4), generator=torch.Generator().manual_seed(1))
    return images.to(torch.uint8), torch.arange(count)


class Files(Dataset[tuple[Any, int]]):
    """Images that are read one by one, and may become something else at that."""

    def __init__(self, count: int = 22, made: Callable[[int], object] | None = None) -> None:
        self.images, _ = memory(count)
        self.made = made or self.images.__getitem__

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.made(index), index


def drawn_image(index: int) -> Tensor:
    """Of random transforms, from each of the generators that they use."""
    values = torch.tensor([torch.rand(()).item(), random.random(), np.random.rand()])
    return values.view(3, 1, 1).expand(3, 5, 4)


TRANSFORMED = Files(made=drawn_image)


def loader(dataset: Dataset[Any], batch_size: int = 8, **changed: Any) -> PrefetchLoader:
    return PrefetchLoader(
        dataset, batch_size, **{"drop_last": False, "workers": 0} | SETTINGS | changed
    )


def assert_same(found: Iterator[Batch], truth: Iterator[Batch]) -> None:
    for (images, labels), (kept, numbers) in zip(found, truth, strict=True):
        assert torch.equal(images, kept) and torch.equal(labels, numbers)
        assert labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)


@WORKERS
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("dataset", [TensorDataset(*memory()), Files(), "floats"])
def test_batches_are_the_device_loaders(dataset: Any, drop_last: bool, workers: int) -> None:
    images, labels = memory()
    plain: dict[str, Any] = {}
    if dataset == "floats":
        images, plain = images / 255, {"augment": None, "normalize": None}
        dataset = TensorDataset(images, labels)
    resident = DeviceLoader(images, labels, 8, drop_last=drop_last, **(SETTINGS | plain))
    ahead = loader(dataset, drop_last=drop_last, workers=workers, **plain)
    assert len(ahead) == len(resident) == (2 if drop_last else 3)
    assert_same(ahead.epoch(4), resident.epoch(4))
    assert_same(ahead.epoch(0, 1), resident.epoch(0, 1))
    assert list(ahead.epoch(0, len(ahead))) == []
    assert_same(iter([ahead.first(11)]), iter([resident.first(11)]))


@WORKERS
def test_first_images_are_those_that_an_evaluation_sees(workers: int) -> None:
    settings: dict[str, Any] = SETTINGS | {"augment": None, "drop_last": False}
    ahead = create_loader("auto", TRANSFORMED, 8, workers=workers, unaugmented=Files(), **settings)
    resident = DeviceLoader(*memory(), 8, **settings)
    assert_same(iter([ahead.first(11)]), iter([resident.first(11)]))
    assert_same(ahead.first_batches(11, 4), resident.first_batches(11, 4))
    assert [len(labels) for _, labels in ahead.first_batches(11, 4)] == [4, 4, 3]


def drawn(batches: Loader, epoch: int, start: int = 0) -> dict[int, Tensor]:
    return {
        int(label): image[:, 0, 0]
        for images, labels in batches.epoch(epoch, start)
        for image, label in zip(images, labels, strict=True)
    }


def test_transforms_are_seeded_by_seed_epoch_and_image_alone() -> None:
    def states() -> list[Any]:
        numpys = repr(np.random.get_state(legacy=True))
        return [torch.get_rng_state().tolist(), random.getstate(), numpys]

    plain: dict[str, Any] = {"augment": None, "normalize": None}
    batches, before = loader(TRANSFORMED, **plain), states()
    first = drawn(batches, 0)
    assert len({float(value) for values in first.values() for value in values}) == 3 * 22
    elsewhere = loader(TRANSFORMED, batch_size=5, workers=2, **plain)
    for again in (drawn(batches, 0), drawn(elsewhere, 0), drawn(batches, 0, 2)):
        assert all(torch.equal(values, first[label]) for label, values in again.items())
    assert states() == before
    for other in (drawn(batches, 1), drawn(loader(TRANSFORMED, **plain | {"seed": 4}), 0)):
        assert not any((values == first[label]).any() for label, values in other.items())


@WORKERS
@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (OSError("truncated file"), "OSError: truncated file"),
        (torch.zeros(5, 4), r"TypeError: a tensor \[C, H, W\] .* of shape \(5, 4\)"),
        ("a path", r"TypeError: a tensor \[C, H, W\] .* 'str'"),
        (torch.zeros(3, 5, 4), r"ValueError: torch.float32 \(3, 5, 4\) in a batch of torch.uint8"),
        (torch.zeros(3, 6, 4).byte(), r"ValueError: .* \(3, 6, 4\) in a batch of .* \(3, 5, 4\)"),
    ],
    ids=["raises", "2-D", "no tensor", "dtype", "shape"],
)
def test_an_unreadable_image_is_named(odd: object, reason: str, workers: int) -> None:
    """The batches before it arrive."""
    whole, _ = memory()

    def made(index: int) -> object:
        if index == 7 and isinstance(odd, Exception):
            raise odd
        return odd if index == 7 else whole[index]

    batches = loader(Files(made=made), workers=workers, batch_size=4)
    order = torch.cat([labels for _, labels in loader(Files()).epoch(6)]).tolist()
    assert order.index(7) % 4 and order.index(7) > 4  # no batch begins with it
    arrived: list[int] = []
    with pytest.raises(UnreadableImage, match=f"^training image 7 cannot be read: {reason}") as e:
        for _, labels in batches.epoch(6):
            arrived += labels.tolist()
    assert e.value.index == 7 and "Traceback" not in str(e.value)
    assert arrived == order[: order.index(7) // 4 * 4]


def test_workers_end_with_an_epoch_that_is_left() -> None:
    before = set(multiprocessing.active_children())
    batches = loader(Files(), batch_size=2, workers=2).epoch(0)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    batches.close()  # type: ignore[attr-defined]
    assert set(multiprocessing.active_children()) == before


def test_workers_leave_signals_to_the_run() -> None:
    """Every one of them gets Ctrl-C, as all processes of a terminal do."""
    whole, _ = memory()

    def made(index: int) -> Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)
        return whole[index]

    assert_same(loader(Files(made=made), workers=2).epoch(0), loader(Files()).epoch(0))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_one_ahead(count: int) -> None:
    made: list[int] = []

    def making() -> Iterator[int]:
        for item in range(count):
            made.append(item)
            yield item

    seen = [(item, len(made)) for item in prefetch._one_ahead(making())]
    assert seen == [(number, min(number + 2, count)) for number in range(count)]


def test_choice() -> None:
    data, settings = memory(), {"drop_last": False, **SETTINGS}
    for kind in ("auto", "device"):
        assert isinstance(create_loader(kind, data, 8, **settings), DeviceLoader)
    for kind in ("auto", "prefetch"):
        ahead = create_loader(kind, Files(), 8, workers=1, **settings)
        assert isinstance(ahead, PrefetchLoader) and ahead.workers == 1
    assert_same(
        create_loader("prefetch", data, 8, workers=0, **settings).epoch(0),
        create_loader("device", data, 8, **settings).epoch(0),
    )


def test_images_fit_a_quarter_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = memory()
    cuda = torch.device("cuda", 0)
    for free, fit in ((4 * images.nbytes, True), (4 * images.nbytes - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**9))
        assert choose_loader.fits(images, cuda) == fit
    assert choose_loader.fits(images, torch.device("cpu"))


def create(kind: str, data: Any) -> Loader:
    return create_loader(kind, data, 8, drop_last=False, **SETTINGS)


REFUSED: dict[str, Callable[[], object]] = {
    "loader 'devise'": lambda: create("devise", memory()),
    "loader 'device'": lambda: create("device", Files()),
    "22 images but 21 labels": lambda: create("prefetch", (memory()[0], memory(21)[1])),
    "workers = -1": lambda: loader(Files(), workers=-1),
    "images is empty": lambda: loader(Files(0)),
    "batch_size = 23 with drop_last": lambda: loader(Files(), 23, drop_last=True),
    "start = 4": lambda: loader(Files()).epoch(0, 4),
}


@pytest.mark.parametrize("named", REFUSED)
def test_refusals(named: str) -> None:
    with pytest.raises(ValueError, match=named):
        REFUSED[named]()


@pytest.mark.gpu
@WORKERS
def test_the_gpu_gets_the_same_batches(workers: int) -> None:
    """Copied on another stream while this one is busy; each batch is read after the next came."""
    host = loader(Files(200))
    device = loader(Files(200), workers=workers, device="cuda")
    busy = torch.rand(2000, 2000, device="cuda")
    kept = []
    for images, labels in device.epoch(2):
        for _ in range(10):
            busy = (busy @ busy).clamp(0, 1)
        kept.append((images + 0, labels + 0))
        del images, labels  # the allocator may hand the memory to the next copy
    for (images, labels), (truth, numbers) in zip(kept, host.epoch(2), strict=True):
        assert torch.equal(labels.cpu(), numbers)
        torch.testing.assert_close(images.cpu(), truth, rtol=1e-6, atol=1e-6)
    assert torch.equal(device.first(9)[1].cpu(), host.first(9)[1])

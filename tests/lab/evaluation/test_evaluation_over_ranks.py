"""Evaluations of several processes: the numbers of one, and every image seen by one of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.lab import in_step, job, stopping
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.common import COMMON_KINDS
from entprop_fast.lab.corruptions.suites import Place, dealt
from entprop_fast.lab.data import FileList, ImageData, ImageFiles, ImageSet, load
from entprop_fast.lab.data.held_out import hold_out
from entprop_fast.lab.evaluation import EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.metrics import accuracy
from entprop_fast.lab.evaluation.saved_counts import SavedCounts
from entprop_fast.lab.job import Job
from entprop_fast.lab.stopping import StopSignals
from entprop_fast.lab.training.validation import Validation
from tests.lab.evaluation import support
from tests.lab.evaluation.support import (
    Brightness,
    tiny_cifar,
    write_cifar_c,
    write_classes,
)
from tests.processes import in_two_processes

CPU = torch.device("cpu")
Case = tuple[ImageSet, EvaluationOptions, int]  # with the images of a batch


class Seen(Brightness):
    """Notes its batches; in one of them something happens."""

    def __init__(self, then: Callable[[], None] | None = None, at: int = 0) -> None:
        super().__init__(10, sharpness=7.0)
        self.images: list[Tensor] = []
        self.then, self.at = then, at

    def forward(self, x: Tensor) -> Tensor:
        self.images += list(x.detach().clone())
        self.at -= 1
        if self.at == 0 and self.then is not None:
            self.then()
        return super().forward(x)


def cases(folder: Path, world: int) -> dict[str, Case]:
    """Test sets with unequal shares; of all kinds where there are two processes."""
    few = _digits()
    images = (tiny_cifar().test_images / 255, tiny_cifar().test_labels)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*images), batch_size=7)
    made = EvaluationOptions(corruptions="generated", scale="cifar-c")
    every = {
        "digits": (few, EvaluationOptions(), 7),
        "fewer batches than processes": (few, EvaluationOptions(pgd=2), 40),
        "a loader": (loader, EvaluationOptions(corruptions="none", pgd=1), 0),
    }
    if world > 2:
        return every  # type: ignore[return-value]
    files = _files(folder)
    return every | {  # type: ignore[return-value]
        "cached": (tiny_cifar(), replace(made, cache_dir=str(folder / "cache")), 7),
        "arrays": (tiny_cifar(), EvaluationOptions(official_dir=folder), 7),
        "folders": (files, EvaluationOptions(official_dir=folder, also=("imagenet-r",)), 5),
        "generated of files": (files, made, 5),
    }


def _digits() -> ImageData:
    data = load("digits")
    assert isinstance(data, ImageData)
    return replace(data, test_images=data.test_images[:40], test_labels=data.test_labels[:40])


def stopped_case() -> Case:
    return _digits(), EvaluationOptions(pgd=2), 7


def prepare(folder: Path) -> None:
    write_cifar_c(folder, tiny_cifar())
    for number, kind in enumerate(COMMON_KINDS):
        for severity in SEVERITIES:
            write_classes(root := folder / "imagenet-c" / kind / str(severity))
            support.black(root / support.WNIDS[number % 4] / f"{severity % 3}.JPEG")
    for name in ("val", "imagenet-r"):
        write_classes(folder / name)


def _files(folder: Path) -> ImageFiles:
    test = FileList(
        folder / "val",
        [f"{wnid}/{i}.JPEG" for wnid in support.WNIDS for i in range(3)],
        [number for number in range(4) for _ in range(3)],
    )
    return ImageFiles("imagenet", test, test, support.WNIDS, 8, official_corruptions="imagenet-c")


def measure(model: Brightness, case: Case, **more: Any) -> str:
    data, options, size = case
    sizes: dict[str, Any] = {} if size == 0 else {"batch_size": size, "workers": 0}
    return json.dumps(evaluate_model(model, data, options, **sizes, **more).as_dict())


def held_out() -> Validation:
    data = hold_out(load("digits", train_size=100), 0.4, seed=0)[1]
    validation = Validation(data, CPU, workers=0)
    validation.batch_size = 7
    return validation


def batches(number: slice) -> list[tuple[Tensor, Tensor]]:
    images = torch.rand(23, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pairs = (one.split(4)[number] for one in (images, torch.arange(23) % 10))
    return list(zip(*pairs, strict=True))


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(BaseException) as error:
        call()
    return f"{type(error.value).__name__}: {error.value}"


def work(folder: str, world: int, rank: int) -> dict[str, Any]:
    root, found = Path(folder), dict[str, Any]()
    with job.joined(Job(rank, world, rank)) as here:
        for name, case in cases(root, world).items():
            found[name] = measure(seen := Seen(), case)
            found[f"images of {name}"] = len(seen.images)
        found["accuracy"] = accuracy(Brightness(10), batches(here.own))
        for _ in range(2):  # made, and kept
            found["held out"] = list(held_out().score(Brightness(10)))
        found |= _stopped(root, here) | _failing(root, here) | _main_first(root, here)
    return found


def _stopped(root: Path, here: Job) -> dict[str, Any]:
    """A signal in one process stops all; its counts go on with any number of processes."""
    found: dict[str, Any] = {}
    signals, case = StopSignals(), stopped_case()

    def stop() -> None:
        if here.rank == here.world - 1:
            signals.pending = signal.SIGTERM

    def run(model: Seen, part: str) -> str:
        with stopping.watched(signals), SavedCounts(root / part, lambda _: None) as kept:
            return measure(model, case, kept=kept)

    stopped = Seen(stop, at=20)
    found["stopped"] = error_of(lambda: run(stopped, f"to {here.world}"))
    found["files"] = len(list((root / f"to {here.world}").iterdir()))
    signals.pending = None
    for part in ("from 1", f"to {here.world}"):
        found[part] = run(again := Seen(), part)
        found[f"images {part}"] = len(again.images)
    here.wait()
    found["files after"] = len(list((root / f"to {here.world}").iterdir()))
    found["images until stopped"] = len(stopped.images)
    # For one process to go on with, afterwards.
    signals.pending = None
    error_of(lambda: run(Seen(stop, at=20), "to 1"))
    return found


def _failing(root: Path, here: Job) -> dict[str, Any]:
    """What one process meets, all of them raise."""
    case = _digits(), EvaluationOptions(), 7

    def fail() -> None:
        if here.rank == 1:
            raise OSError(28, "No space left on device", "a file")

    nan = Seen()
    if here.rank == 1:
        nan.centres.data[3] = torch.nan
    files, gone = _files(root), "n01484850/2.JPEG"
    (root / f"bad {here.world}" / "n01484850").mkdir(parents=True, exist_ok=True)
    names = [f"{support.WNIDS[label]}/{name}.JPEG" for label, name in files.test.names()]
    test = FileList(root, [f"val/{n}" if n != gone else gone for n in names], [0] * 12)
    broken = replace(files, test=test), EvaluationOptions(corruptions="none"), 5
    return {
        "failed": error_of(lambda: measure(Seen(fail, at=3), case)),
        "nan": error_of(lambda: measure(nan, case)),
        "unreadable": error_of(lambda: measure(Seen(), broken)),
    }


def _main_first(root: Path, here: Job) -> dict[str, Any]:
    made = root / f"made by the first of {here.world}"
    with in_step.main_first():
        there = made.exists()
        made.touch()

    def fail(rank: int) -> None:
        with in_step.together(), in_step.main_first():
            if here.rank == rank:
                raise ValueError("told once")

    return {
        "there": there,
        "main failed": error_of(lambda: fail(0)),
        "other failed": error_of(lambda: fail(1)),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sets")
    prepare(made)
    return made


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, case in {**cases(folder, 2), "stopped": stopped_case()}.items():
        found[name] = measure(seen := Seen(), case)
        found[f"images of {name}"] = len(seen.images)
    found["accuracy"] = accuracy(Brightness(10), batches(slice(None)))
    found["held out"] = list(held_out().score(Brightness(10)))
    return found


@pytest.fixture(scope="module", params=[2, 3])
def ranks(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    world = request.param
    for part in ("from 1", "to 1", f"to {world}"):
        (folder / part).mkdir(exist_ok=True)
    signals = StopSignals()
    stop = partial(setattr, signals, "pending", signal.SIGTERM)
    with pytest.raises(stopping.Stopped), stopping.watched(signals):
        with SavedCounts(folder / "from 1", lambda _: None) as kept:
            measure(Seen(stop, at=30), stopped_case(), kept=kept)
    place = tmp_path_factory.mktemp("ranks")
    return in_two_processes(partial(work, str(folder), world), place, world)


def test_numbers_are_those_of_one_process_and_no_image_is_seen_twice(
    alone: dict[str, Any], ranks: list[dict[str, Any]], folder: Path
) -> None:
    for name in cases(folder, len(ranks)):
        assert [found[name] for found in ranks] == [alone[name]] * len(ranks), name
        each = [found[f"images of {name}"] for found in ranks]
        assert sum(each) == alone[f"images of {name}"], name
        assert max(each) < alone[f"images of {name}"], name  # they shared
    for name in ("accuracy", "held out"):
        assert [found[name] for found in ranks] == [alone[name]] * len(ranks)


def test_a_stop_of_one_stops_all_and_any_number_goes_on(
    alone: dict[str, Any], ranks: list[dict[str, Any]], folder: Path
) -> None:
    whole, world = alone["images of stopped"], len(ranks)
    assert [found["stopped"] for found in ranks] == ["Stopped: SIGTERM"] * world
    assert ranks[0]["files"] == 1 and ranks[0]["files after"] == 0
    for part in ("from 1", f"to {world}"):
        assert [found[part] for found in ranks] == [alone["stopped"]] * world
    before = sum(found["images until stopped"] for found in ranks)
    after = sum(found[f"images to {world}"] for found in ranks)
    assert whole <= before + after <= whole + 7 * world * 4  # a batch under attack is begun anew
    assert sum(found["images from 1"] for found in ranks) < whole - 29 * 6
    with SavedCounts(folder / "to 1", lambda _: None) as kept:
        again = measure(seen := Seen(), stopped_case(), kept=kept)
    assert again == alone["stopped"] and len(seen.images) < whole - 100


def test_what_one_meets_all_raise(ranks: list[dict[str, Any]]) -> None:
    for name, kind, text in (
        ("failed", "OSError", "No space left on device: 'a file'"),
        ("unreadable", "UnreadableImage", "test image 8 cannot be read"),
        ("main failed", "ValueError", "told once"),
        ("other failed", "ValueError", "told once"),
    ):
        by = 0 if name == "main failed" else 1
        for rank, found in enumerate(ranks):
            assert found[name].startswith(f"{kind}: ") and text in found[name]
            assert (f"rank {by}: " in found[name]) == (rank != by)
    assert len({found["nan"] for found in ranks}) == 1
    assert "NaNLogits" in ranks[0]["nan"] and "of 40 clean test images" in ranks[0]["nan"]


def test_the_others_come_after_rank_0(ranks: list[dict[str, Any]]) -> None:
    assert [found["there"] for found in ranks] == [False] + [True] * (len(ranks) - 1)


def test_a_clean_file_is_read_by_one_process() -> None:
    places = [Place(kind, s, first) for first in range(0, 9, 3) for kind in "ab" for s in (1, 2)]
    for world in (2, 3):
        parts = []
        for rank in range(world):
            with job.joined(Job(rank, world, rank)):
                parts.append(dealt(places, by_batch=True))
        assert sorted(chain(*parts)) == sorted(places)
        firsts = [{place.first for place in part} for part in parts]
        assert sum(map(len, firsts)) == 3

"""Check that stopped evaluations go on, to the same bits, and count nothing twice."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from entprop_fast.lab import stopping
from entprop_fast.lab.cli import evaluate
from entprop_fast.lab.corruptions import corrupt as digits_corruption
from entprop_fast.lab.corruptions import suites
from entprop_fast.lab.corruptions.suites import Sample
from entprop_fast.lab.data import ImageSet, load
from entprop_fast.lab.evaluation import (
    Evaluation,
    EvaluationOptions,
    evaluate_model,
    pgd,
    saved_counts,
)
from entprop_fast.lab.evaluation.choose_suite import choose_suite
from entprop_fast.lab.evaluation.saved_counts import SavedCounts, key_of
from entprop_fast.lab.stopping import StopSignals
from tests.lab.evaluation import support
from tests.lab.evaluation.support import Brightness, tiny_cifar, tiny_imagenet, write_cifar_c

CPU = torch.device("cpu")


class Killed(BaseException):
    """Nothing but what is on the disk survives it."""


class Counting(Brightness):
    """Counts its batches; in one of them it asks to stop, or, without signals, is killed."""

    def __init__(self, stop_in: int | None = None, signals: StopSignals | None = None) -> None:
        super().__init__(10)
        self.batches, self.stop_in, self.signals = 0, stop_in, signals

    def forward(self, x: Tensor) -> Tensor:
        self.batches += 1
        if self.batches == self.stop_in:
            if self.signals is None:
                raise Killed
            self.signals.pending = signal.SIGTERM
        return super().forward(x)


def digits(folder: Path) -> tuple[ImageSet, EvaluationOptions]:
    data = load("digits")
    images, labels = data.test_images[:40], data.test_labels[:40]
    return replace(data, test_images=images, test_labels=labels), EvaluationOptions()


def generated(folder: Path) -> tuple[ImageSet, EvaluationOptions]:
    return tiny_cifar(), EvaluationOptions(corruptions="generated", extra=True, pgd=2)


def arrays(folder: Path) -> tuple[ImageSet, EvaluationOptions]:
    data = tiny_cifar()
    write_cifar_c(folder, data)
    return data, EvaluationOptions(official_dir=folder)


def folders(folder: Path) -> tuple[ImageSet, EvaluationOptions]:
    data = tiny_imagenet(folder)
    support.folders(data, folder / "imagenet-c")
    return data, EvaluationOptions(official_dir=folder)


@pytest.fixture(scope="module", params=[digits, generated, arrays, folders])
def given(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ImageSet, EvaluationOptions]:
    """A test set, and what is asked of it."""
    made: tuple[ImageSet, EvaluationOptions] = request.param(tmp_path_factory.mktemp("data"))
    return made


def test_a_suite_gives_the_samples_that_are_asked_for(
    given: tuple[ImageSet, EvaluationOptions],
) -> None:
    suite = choose_suite(*given, CPU, batch_size=7, workers=0)
    assert suite is not None
    places = [place for place in suite.places if place.severity in (1, 3)]
    every = list(suite.samples(places))
    assert [sample.place for sample in every] == places
    for some in (slice(1, None), slice(len(every), None), slice(0, None, 3)):
        left = list(suite.samples(places[some]))
        assert [sample.place for sample in left] == places[some]
        for ours, theirs in zip(left, every[some], strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert torch.equal(ours.labels, theirs.labels)


def run(model: Brightness, case: tuple[ImageSet, EvaluationOptions], folder: Path) -> Evaluation:
    signals = getattr(model, "signals", None)
    with stopping.watched(signals), SavedCounts(folder, lambda _: None) as keeping:
        return evaluate_model(model, *case, batch_size=7, workers=0, kept=keeping)


def test_a_stopped_evaluation_goes_on(
    given: tuple[ImageSet, EvaluationOptions], tmp_path: Path
) -> None:
    """FOUND C6: in every phase, with the bits of the uninterrupted one."""
    whole, folder = Counting(), tmp_path
    expected = run(whole, given, folder)
    for stop_in in (1, whole.batches // 2):
        stopped = Counting(stop_in, StopSignals())
        with pytest.raises(stopping.Stopped) as error:
            run(stopped, given, folder)
        assert str(folder) in (error.value.saved or "") and len(list(folder.iterdir())) == 1
        again = Counting()
        assert run(again, given, folder) == expected
        # A batch under attack has several passes, and is begun anew.
        assert again.batches <= whole.batches - stop_in + (4 if given[1].pgd else 0)
        assert not list(folder.iterdir())


def test_a_kill_loses_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND C6: counts are written now and then, not at the end."""
    monkeypatch.setattr(saved_counts, "EVERY", 0.0)
    given = tiny_cifar(count=70), EvaluationOptions(corruptions="none", pgd=1)
    expected = run(whole := Counting(), given, tmp_path)
    assert whole.batches == 10 + 2 * 10
    with pytest.raises(Killed):
        run(Counting(16), given, tmp_path)  # in the attack's third batch, or its second pass
    again = Counting()
    assert run(again, given, tmp_path) == expected
    assert again.batches == whole.batches - 14


def test_counts_are_of_one_network_and_one_question(tmp_path: Path) -> None:
    data, other = tiny_cifar(), tiny_cifar(count=21)
    moved = Brightness(4)
    moved.centres.data[1] += 1e-6
    keys = {
        key_of(Brightness(4), data, {"seed": 0}),
        key_of(moved, data, {"seed": 0}),
        key_of(Brightness(4), other, {"seed": 0}),
        key_of(Brightness(4), data, {"seed": 1}),
    }
    assert len(keys) == 4 and key_of(Brightness(4), tiny_cifar(), {"seed": 0}) in keys


def test_a_shift_that_changed_is_counted_anew(tmp_path: Path) -> None:
    """Its path is what it was: what lies there decides."""
    data, path, folder = tiny_cifar(), tmp_path / "new.npz", tmp_path / "counts"
    given = data, EvaluationOptions(corruptions="none", shift=(f"new={path}",))
    folder.mkdir()

    def write(labels: Tensor) -> None:
        images = data.test_images.permute(0, 2, 3, 1)
        np.savez(path, images=images.numpy(), labels=labels.numpy())

    write(data.test_labels)
    with pytest.raises(stopping.Stopped):  # in its second batch of three
        run(Counting(5, StopSignals()), given, folder)
    write(data.test_labels.flip(0))
    again = Counting()
    found = run(again, given, folder)
    assert again.batches == 6 and found == run(Counting(), given, tmp_path)


def test_damaged_counts_are_counted_anew(tmp_path: Path) -> None:
    given = tiny_cifar(), EvaluationOptions(corruptions="none")
    expected = run(Counting(), given, tmp_path)
    with pytest.raises(stopping.Stopped):
        run(Counting(2, StopSignals()), given, tmp_path)
    (part,) = tmp_path.iterdir()
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    assert run(Counting(), given, tmp_path) == expected


def test_an_attack_asks_in_every_step() -> None:
    """FOUND W13: a batch under attack takes longer than anybody waits."""
    model = Counting(3, signals := StopSignals())
    images, labels = torch.rand(2, 3, 8, 8), torch.zeros(2).long()
    with stopping.watched(signals), pytest.raises(stopping.Stopped):
        pgd(model, images, labels, steps=100)
    assert model.batches == 3


def test_the_command_goes_on_with_several_networks(
    runs: list[Path], few_digits: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND C6, N7: the first network is not measured again, and nothing is left behind."""
    made = 0

    def stopping_at(limit: int | None) -> Callable[..., Any]:
        original = digits_corruption

        def corrupt(*args: Any, **settings: Any) -> Tensor:
            nonlocal made
            made += 1
            if made == limit:
                signal.raise_signal(signal.SIGUSR1)
            return original(*args, **settings)

        return corrupt

    command = [*map(str, runs), "--seed", "1", "--device", "cpu", "--batch-size", "500"]
    documents = []
    for name, limit in (("whole", None), ("stopped", 60)):
        out, made = tmp_path / name, 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(suites, "corrupt", stopping_at(limit))
            if limit is not None:
                assert evaluate.main([*command, "--out", str(out)]) == 138
                assert f"kept in {out}" in capsys.readouterr().err
                assert len(list(out.glob("evaluation-*.part"))) == 2
            assert evaluate.main([*command, "--out", str(out)]) == 0
        assert made == 100
        documents.append({one.name: one.read_bytes() for one in out.iterdir()})
    assert documents[0] == documents[1]


def test_results_are_written_before_they_are_printed(
    runs: list[Path], few_digits: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FOUND C6: whatever becomes of the tables."""

    def lost(*_: object) -> Iterator[Sample]:
        raise RuntimeError("the terminal")

    monkeypatch.setattr(evaluate, "_print", lost)
    for out in (tmp_path / "folder", tmp_path / "one.json"):
        with pytest.raises(RuntimeError, match="the terminal"):
            evaluate.main([str(runs[0]), "--device", "cpu", "--out", str(out)])
    assert (tmp_path / "folder/evaluation.md").is_file() and (tmp_path / "one.json").is_file()

"""Where training images live changes no run; what augments them does."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor
from torch.utils.data import Dataset

from entprop_fast.lab import data
from entprop_fast.lab.data import choose_loader
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.recipe import resolve
from tests.lab.conftest import Call, assert_same, model, stop_at

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.mark.parametrize("workers", ["0", "2"])
def test_prefetching_trains_the_same_network(
    workers: str, finished: Path, run: Call, tmp_path: Path
) -> None:
    assert f"{workers} workers" in run(tmp_path, "--loader", "prefetch", "--workers", workers)
    assert_same(tmp_path, finished)


def test_a_stopped_run_goes_on_with_either_loader(
    finished: Path, run: Call, tmp_path: Path
) -> None:
    flags = ("--augment", "crop-flip", "--corruptions", "none", "--workers", "1", "--loader")
    run(tmp_path / "whole", *flags, "auto")
    for first, second in (("device", "prefetch"), ("prefetch", "device")):
        with pytest.MonkeyPatch.context() as patch:
            stop_at(patch, 2, signal.SIGTERM)  # in the middle of the second epoch
            run(tmp_path / first, *flags, first, code=143)
        run(tmp_path / first, *flags, second, "--resume")
        assert_same(tmp_path / first, tmp_path / "whole")
    assert model(tmp_path / "whole") != model(finished)


def test_bytes_train_as_their_floats_do(tmp_path: Path) -> None:
    digits = data.load("digits", train_size=40)
    images = [(255 * one).round().byte() for one in (digits.train_images, digits.test_images)]
    scores = []
    for name, sets in (("bytes", images), ("floats", [one.float() / 255 for one in images])):
        config = resolve("digits", batch_size=20, epochs=2, device="cpu", out=str(tmp_path / name))
        given = replace(digits, train_images=sets[0], test_images=sets[1])
        scores.append(train_run(config, images=given).corruptions)
    assert_same(tmp_path / "bytes", tmp_path / "floats")
    assert scores[0] == scores[1]


class Breaking(Dataset[tuple[Tensor, Tensor]]):
    """Can be read a number of times."""

    left = 0

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        Breaking.left -= 1
        if Breaking.left < 0:
            raise OSError("disk lost")
        return self.images[index], self.labels[index]


@pytest.mark.parametrize(("readable", "code"), [(0, 2), (9, 1)])  # batches; an epoch reads 4
def test_an_unreadable_image_ends_the_run_in_one_line(
    readable: int, code: int, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaking, "left", 20 * readable)
    monkeypatch.setattr(choose_loader, "TensorDataset", Breaking)
    error = run(tmp_path / "run", "--loader", "prefetch", "--workers", "0", code=code)
    assert "training image " in error and "disk lost" in error
    assert (tmp_path / "run").exists() == (code == 1)
    assert ("the last good checkpoint is" in error) == (code == 1)

"""bench/captured_run.py on the CPU, where no step is captured: its curves, scores and table."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import torch

from bench import captured_run, rows
from entprop_fast.lab import data
from entprop_fast.lab.training.recipe import resolve
from tests.bench.conftest import WHERE


def test_the_digits_are_enlarged() -> None:
    images = captured_run.images_at(16)
    assert images.image_shape == (1, 16, 16) and images.num_train == 1797 - 500
    assert images.train_images.min() >= 0 and images.train_images.max() <= 1
    small = data.load("digits").train_images
    blurred = torch.nn.functional.avg_pool2d(images.train_images, 2)
    assert (blurred - small).abs().mean() < 0.1  # the same digits


def test_a_run_is_a_row_and_repeats_itself_on_a_cpu() -> None:
    config = resolve(
        "digits", arch="wrn10_0.5", epochs=2, corruptions="generated", device="cpu", train_size=150
    )
    images = data.load("digits", train_size=150, test_size=40)
    captured, eager, again = (captured_run.run(name, config, images) for name in captured_run.RUNS)
    assert len(eager["loss"]) == len(eager["sa"]) == 2 and not captured["captured"]
    for other in (captured, again):  # the same seed: weights, batches and draws
        for curve in ("loss", "sa"):
            assert captured_run.largest_difference(eager, other, curve) == 0
        assert (other["final_sa"], other["final_ra"]) == (eager["final_sa"], eager["final_ra"])
    assert eager["final_sa"] == eager["sa"][-1] and 0 < eager["hscore"] < 100
    assert eager["seconds"] > eager["first_epoch_seconds"] > 0


def test_the_command_keeps_a_row_of_each_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rows, "PARTS", tmp_path)
    images = data.load("digits", train_size=150, test_size=40)
    monkeypatch.setattr(captured_run, "images_at", lambda pixels: images)
    captured_run.main(["digits", *"--arch wrn10_0.5 --epochs 1 --device cpu".split()])
    found = [json.loads(line) for line in (tmp_path / "captured_run_cpu.jsonl").open()]
    assert [row["run"] for row in found] == list(captured_run.RUNS)
    assert {(row["data_set"], row["pixels"], row["epochs"]) for row in found} == {("digits", 8, 1)}
    assert "digits, eager again: SA " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        captured_run.main(["cifar10"])
    assert "expected some of digits, fashion_mnist" in capsys.readouterr().err


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Fashion-MNIST; return the folder beside the program."""
    from entprop_fast.lab.data import fashion_mnist

    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(captured_run, "BESIDE", tmp_path / "data")
    monkeypatch.setattr(rows, "PARTS", tmp_path)
    return tmp_path / "data"


def test_a_data_set_that_is_not_there_is_skipped(
    nowhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captured_run.main(["fashion_mnist", "--device", "cpu"])
    said = capsys.readouterr().out
    assert said.startswith("skipped: data set 'fashion_mnist'") and "dataset-fashion-mnist" in said
    assert rows.part("captured_run_cpu").read_text() == ""


def test_carried_files_are_found(nowhere: Path) -> None:
    """Beside the program; the reader then says what is wrong with these."""
    folder = nowhere / "fashion-mnist"
    folder.mkdir(parents=True)
    for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{part}-ubyte.gz").write_bytes(gzip.compress(b"not the official one"))
    with pytest.raises(ValueError, match=str(folder)):
        captured_run.load(resolve("fashion_mnist"))


def test_the_table_compares_the_curves(kept: dict[str, list[rows.Row]]) -> None:
    def row(data_set: str, name: str, last: float, seconds: float) -> rows.Row:
        curves = {"loss": [2.0, last], "sa": [50.0, 90.0]}
        times = {"seconds": seconds, "first_epoch_seconds": 1.0}
        scores = {"final_sa": 90.0, "final_ra": 60.0, "hscore": 72.0}
        of_all = {"arch": "wrn28_10", "method": "entprop", "pixels": 32, "batch": 64, "epochs": 2}
        of_all |= {"data_set": data_set, "train_images": 1297}
        return WHERE | {"run": name} | of_all | curves | times | scores

    measured = ("captured", 1.5, 2.0), ("eager", 1.25, 5.0), ("eager again", 1.375, 5.0)
    kept[captured_run.NAME] = [row(s, *one) for s in captured_run.SETS for one in measured]
    text = captured_run.section(Path("docs/x.md"))
    assert text.count("| 2 | 1.5000 | 1.2500 | 1.3750 | 90.0 | 90.0 | 90.0 |") == 2
    assert "loss, captured from eager: 0.2500; between the two eager runs: 0.1250" in text
    assert "captured SA 90.0, RA 60.0, Hscore 72.0; eager SA" in text
    assert "captured 1.0 s, eager 4.0 s" in text
    assert "`python -m bench.captured_run fashion_mnist`" in text

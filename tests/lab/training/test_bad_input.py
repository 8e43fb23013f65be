"""A run that is refused, or fails, says so in one line and leaves what was there."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast import models
from entprop_fast.lab import checkpoint, data, files
from entprop_fast.lab.data import verify
from entprop_fast.lab.data.image_files import FileList
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.errors import UsageError, machine_failed
from entprop_fast.lab.training.load_network import load_network
from entprop_fast.lab.training.meter import Meter
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.methods import StepResult
from entprop_fast.models.weights import load_weights
from tests.lab.conftest import Call

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("", "--resume"),
        ("--resume --arch wrn16_0.5", "arch is 'wrn16_0.5', was 'wrn10_0.5'"),
        ("--resume --k 0.5 --seed 3", "k is 0.5, was 0.2; seed is 3, was 0"),
        ("--overwrite --k 7", "k=7"),
    ],
)
def test_a_run_is_kept(flags: str, words: str, run: Call, finished: Path) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert words in run(finished, *flags.split(), code=2)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


def test_a_loss_that_becomes_nan_stops_the_run(run: Call, tmp_path: Path) -> None:
    error = run(tmp_path, "--lr", "1e30", "--schedule", "constant", code=1)
    assert re.search(r" step \d+; no checkpoint was saved yet\n", error)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert not (tmp_path / "model.safetensors").exists()


def nan_in_the_loss(patch: pytest.MonkeyPatch) -> None:
    add = Meter.add

    def add_nan(self: Meter, step: int, images: int, result: StepResult, *rows: int) -> bool:
        bad = result._replace(aux_loss=torch.tensor(torch.nan)) if step == 5 else result
        return add(self, step, images, bad, *rows)

    patch.setattr(Meter, "add", add_nan)


def nan_behind_a_finite_loss(patch: pytest.MonkeyPatch) -> None:
    train_batch = Trainer._train_batch

    def breaking(self: Trainer, *batch: torch.Tensor) -> bool:
        full = train_batch(self, *batch)
        if self.step == 4:
            next(self.model.parameters()).data.view(-1)[0] = torch.nan
        return full

    patch.setattr(Trainer, "_train_batch", breaking)


@pytest.mark.parametrize(
    ("breaks", "words", "epoch"),
    [
        (nan_in_the_loss, "aux loss is nan at step 5; the last good checkpoint is", 2),
        (nan_behind_a_finite_loss, "weight is NaN or infinite after step 4", 1),
    ],
)
def test_nan_later_in_the_run_keeps_the_last_good_checkpoint(
    breaks: Callable[[pytest.MonkeyPatch], None],
    words: str,
    epoch: int,
    run: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    breaks(monkeypatch)
    assert words in run(tmp_path, code=1)
    assert checkpoint.read(tmp_path / "checkpoint.pt")["epoch"] == epoch


BAD_DATA: dict[str, dict[str, Any]] = {
    "labels hold": {"train_labels": torch.full((40,), 10)},
    "input_range": {"train_images": torch.full((40, 1, 8, 8), 1.5)},
    "nan": {"train_images": torch.full((40, 1, 8, 8), torch.nan)},
    "float64": {"train_images": torch.zeros(40, 1, 8, 8, dtype=torch.float64)},
    "uint8": {"train_images": torch.zeros(40, 1, 8, 8, dtype=torch.uint8)},
    "int64": {"train_labels": torch.zeros(40, dtype=torch.int32)},
}


@pytest.mark.parametrize("message", BAD_DATA)
def test_data_that_the_model_cannot_take(message: str, tmp_path: Path) -> None:
    config = resolve("digits", batch_size=20, out=str(tmp_path / "run"), device="cpu")
    digits = data.load("digits", train_size=40)
    assert isinstance(digits, data.ImageData)
    with pytest.raises(UsageError, match=message):
        train_run(config, images=replace(digits, **BAD_DATA[message]))
    assert not (tmp_path / "run").exists()


def test_weights_that_are_no_number(tmp_path: Path) -> None:
    """FOUND C8: a flipped exponent."""
    network, path = models.create("wrn10_0.01", num_classes=3), str(tmp_path / "w.pth")
    network.state_dict()["conv1.weight"].fill_(torch.inf)
    torch.save(network.state_dict(), path)
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        load_weights(network, path, "wrn10_0.01", num_classes=3, in_channels=3)


NO_MEMORY: tuple[Callable[[], object], ...] = (
    lambda: torch.empty(2**55).zero_(),
    lambda: bytearray(2**60),
    lambda: torch.empty(2**62, 2**20),
)


def test_what_no_memory_looks_like() -> None:
    """FOUND C8: the errors themselves, as this torch and this system raise them."""
    for take in NO_MEMORY:
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            take()
        said = machine_failed(raised.value)
        assert said is not None and said.startswith("out of memory") and "\n" not in said
    assert machine_failed(torch.OutOfMemoryError("CUDA out of memory.\nmore")) is not None
    assert machine_failed(OSError(errno.ENOSPC, "No space left", "x")) is not None
    assert machine_failed(RuntimeError("a fault of ours")) is None


@pytest.mark.parametrize("at", [0, 3])
def test_out_of_memory_names_the_last_good_checkpoint(
    at: int, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FOUND C8: at the first step, and later."""
    train_batch = Trainer._train_batch

    def full(self: Trainer, *batch: torch.Tensor) -> bool:
        if self.step == at:
            NO_MEMORY[0]()
        return train_batch(self, *batch)

    monkeypatch.setattr(Trainer, "_train_batch", full)
    out = tmp_path / "run"
    error = run(out, code=1)
    assert "out of memory" in error
    assert (str(out / "checkpoint.pt") in error) == (at == 3) == out.exists()


def test_a_network_that_does_not_fit_into_memory(run: Call, tmp_path: Path) -> None:
    """FOUND C8: before the first step."""
    assert "out of memory" in run(tmp_path / "run", "--arch", "wrn10_100000000", code=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "verdict",
    [
        *("", "nul", "[]", "3", '{"7": ""}', '{"-1": ""}', '{"x": ""}', '{"1": 3, "": ""}'),
        *("[" * 100_000, "\udcff", '{"1": "said before"}'),
    ],
    ids=range(11),
)
def test_a_damaged_verdict_cache(
    verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FOUND C8: files are looked at again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    files = FileList(tmp_path, ["a.png", "b.png"], [0, 0])
    assert set(verify.unreadable(files)) == {0, 1}
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_bytes(verdict.encode(errors="surrogateescape"))
    assert set(verify.unreadable(files)) >= {1}


def test_a_crafted_checkpoint_is_refused(tmp_path: Path) -> None:
    """FOUND C8: under the right checksum stands a tensor."""
    path = tmp_path / checkpoint.CURRENT
    torch.save(torch.zeros(3), path)
    content = path.read_bytes()
    digest = checkpoint._digest(memoryview(content))
    files.write_atomically(path, content, checkpoint._MARK, digest, b"\n")
    with pytest.raises(checkpoint.CorruptCheckpoint, match="Tensor"):
        checkpoint.read(path)
    checkpoint.save(tmp_path, {"model": {}})
    with pytest.raises(ValueError, match="another version"):
        load_network(tmp_path)


def test_lists_of_labels_beyond_reason(tmp_path: Path) -> None:
    """Found by the fuzz test: names for 10**12 classes would be made for ever."""
    (tmp_path / "a.png").write_bytes(b"")
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(f"a.png {10**12}\n")
    with pytest.raises(ValueError, match="label"):
        data.load(f"folder:{tmp_path}")


def test_a_last_batch_that_cannot_be_mixed(run: Call, tmp_path: Path) -> None:
    """It is refused before an epoch is trained up to there, and goes through where none mixes."""
    out, words = tmp_path / "run", ["--train-size", "41", "--epochs", "1", "--no-drop-last"]
    said = run(out, *words, code=2)
    assert "--no-drop-last: the last batch" in said and "1 row, and mixup=1 mixes 2" in said
    assert not out.exists()
    run(out, *words, "--mixup", "0", "--corruptions", "none")

"""FOUND C8: what users and machines do wrong is one line, with exit code 2 or 1."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from entprop_fast import models
from entprop_fast.lab import checkpoint, data, files
from entprop_fast.lab.cli import train
from entprop_fast.lab.data import verify
from entprop_fast.lab.data.image_files import FileList
from entprop_fast.lab.training.errors import machine_failed
from entprop_fast.lab.training.load_network import load_network
from entprop_fast.lab.training.trainer import Trainer
from tests.lab.conftest import Args

pytestmark = pytest.mark.usefixtures("without_pictures")


def the_line(capsys: pytest.CaptureFixture[str], word: str) -> str:
    error = capsys.readouterr().err
    assert error.startswith(f"{word}: ") and error.count("\n") == 1, error
    return error


def flipped(path: Path, byte: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte % len(content)] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "old.pth"])
def test_weights_with_a_flipped_bit(name: str, tmp_path: Path) -> None:
    """FOUND C8: read, or refused by name; never anything else."""
    model = models.create("wrn10_0.01", num_classes=3)
    state = model.state_dict()
    path, outcomes = tmp_path / name, set()
    draw = torch.Generator().manual_seed(1)
    for _ in range(150):
        if name == "w.safetensors":
            safetensors.torch.save_file(state, path)
        else:
            torch.save(state, path, _use_new_zipfile_serialization=name == "w.pth")
        size = path.stat().st_size if torch.rand((), generator=draw) < 0.3 else 600
        flipped(path, *(int(torch.randint(n, (), generator=draw)) for n in (size, 8)))
        try:
            models.weights.load_weights(
                model, str(path), "wrn10_0.01", num_classes=3, in_channels=3
            )
            outcomes.add("taken")
        except ValueError as error:
            assert name in str(error)
            outcomes.add("refused")
    assert outcomes == {"taken", "refused"}  # a bit of a number is a number


def test_weights_that_are_no_number(tmp_path: Path) -> None:
    """FOUND C8: a flipped exponent."""
    model = models.create("wrn10_0.01", num_classes=3)
    state = model.state_dict()
    state["conv1.weight"] = state["conv1.weight"].clone().fill_(torch.inf)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        models.weights.load_weights(
            model, str(tmp_path / "w.pth"), "wrn10_0.01", num_classes=3, in_channels=3
        )


NO_MEMORY: dict[str, Callable[[], object]] = {
    "torch": lambda: torch.empty(2**55).zero_(),
    "python": lambda: bytearray(2**60),
    "sizes": lambda: torch.empty(2**62, 2**20),
}


def test_what_no_memory_looks_like() -> None:
    """FOUND C8: the errors themselves, as this torch and this system raise them."""
    for take in NO_MEMORY.values():
        with pytest.raises((RuntimeError, MemoryError)) as raised:
            take()
        said = machine_failed(raised.value)
        assert said is not None and said.startswith("out of memory") and "\n" not in said
    assert machine_failed(torch.OutOfMemoryError("CUDA out of memory.\nmore")) is not None
    assert machine_failed(OSError(errno.ENOSPC, "No space left", "x")) is not None
    assert machine_failed(RuntimeError("a fault of ours")) is None


@pytest.mark.parametrize("at", [0, 3])
def test_out_of_memory_names_the_last_good_checkpoint(
    at: int,
    tiny: Args,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FOUND C8: at the first step, and later."""
    train_batch = Trainer._train_batch

    def full(self: Trainer, *batch: torch.Tensor) -> bool:
        if self.step == at:
            NO_MEMORY["torch"]()
        return train_batch(self, *batch)

    monkeypatch.setattr(Trainer, "_train_batch", full)
    out = tmp_path / "run"
    assert train.main(tiny(out)) == 1
    error = the_line(capsys, "failed")
    assert "out of memory" in error
    assert (str(out / "checkpoint.pt") in error) == (at == 3)
    assert out.exists() == (at == 3)


def test_a_network_that_does_not_fit_into_memory(
    tiny: Args, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND C8: before the first step."""
    assert train.main(tiny(tmp_path / "run", "--arch", "wrn10_100000000")) == 1
    assert "out of memory" in the_line(capsys, "failed")
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
    checkpoint.save(tmp_path, {"model": {}})
    path = tmp_path / checkpoint.CURRENT
    torch.save(torch.zeros(3), tmp_path / "t")
    content = (tmp_path / "t").read_bytes()
    files.write_atomically(
        path, content, checkpoint._MARK, checkpoint._digest(memoryview(content)), b"\n"
    )
    with pytest.raises(checkpoint.CorruptCheckpoint, match="Tensor"):
        checkpoint.read(path)
    with pytest.raises(ValueError, match="another version"):
        checkpoint.save(tmp_path, {"model": {}})
        load_network(tmp_path)


def test_lists_of_labels_beyond_reason(tmp_path: Path) -> None:
    """Found by the fuzz test: names for 10**12 classes would be made for ever."""
    (tmp_path / "a.png").write_bytes(b"")
    for name in ("train", "test"):
        (tmp_path / f"{name}.txt").write_text(f"a.png {10**12}\n")
    with pytest.raises(ValueError, match="label"):
        data.load(f"folder:{tmp_path}")

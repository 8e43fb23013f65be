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
from entprop_fast.lab.data import verify
from entprop_fast.lab.data.image_files import FileList
from entprop_fast.lab.training.errors import machine_failed
from entprop_fast.lab.training.load_network import load_network
from entprop_fast.lab.training.trainer import Trainer
from tests.lab.conftest import Call

pytestmark = pytest.mark.usefixtures("without_pictures")

ARCH = "wrn10_0.01"


def load_weights(path: Path) -> None:
    network = models.create(ARCH, num_classes=3)
    models.weights.load_weights(network, str(path), ARCH, num_classes=3, in_channels=3)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "old.pth"])
def test_weights_with_a_flipped_bit(name: str, tmp_path: Path) -> None:
    """FOUND C8: read, or refused by name; never anything else."""
    path, outcomes = tmp_path / name, set()
    state = models.create(ARCH, num_classes=3).state_dict()
    if name == "w.safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "w.pth")
    whole, draw = path.read_bytes(), torch.Generator().manual_seed(1)
    for _ in range(100):
        size = len(whole) if torch.rand((), generator=draw) < 0.3 else 600
        byte, bit = (int(torch.randint(n, (), generator=draw)) for n in (size, 8))
        content = bytearray(whole)
        content[byte] ^= 1 << bit
        path.write_bytes(content)
        try:
            load_weights(path)
            outcomes.add("taken")
        except ValueError as error:
            assert name in str(error)
            outcomes.add("refused")
    assert outcomes == {"taken", "refused"}  # a bit of a number is a number


def test_weights_that_are_no_number(tmp_path: Path) -> None:
    """FOUND C8: a flipped exponent."""
    state = models.create(ARCH, num_classes=3).state_dict()
    state["conv1.weight"].fill_(torch.inf)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"conv1\.weight"):
        load_weights(tmp_path / "w.pth")


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

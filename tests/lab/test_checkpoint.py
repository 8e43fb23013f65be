"""Check that no kill, flipped bit or hostile file turns a checkpoint into a wrong run."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from entprop_fast.lab import checkpoint
from entprop_fast.lab.checkpoint import CorruptCheckpoint


def state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((3, 5), float(step)), "rows": [{"sa": 1.5}, None]}


def test_saved_state_comes_back_and_plain_torch_reads_the_file(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, state(step))
    ours = checkpoint.read(tmp_path / checkpoint.CURRENT)
    plain = torch.load(tmp_path / checkpoint.CURRENT, weights_only=True)
    for read in (ours, plain):
        assert read["rows"] == [{"sa": 1.5}, None]
        assert torch.equal(read["weights"], state(3)["weights"])
    assert checkpoint.read(tmp_path / checkpoint.PREVIOUS)["step"] == 2


def test_any_flipped_bit_and_a_cut_are_detected(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, state(1))
    path, draw = tmp_path / checkpoint.CURRENT, random.Random(0)
    whole = path.read_bytes()
    for byte in (0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(100))):
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CorruptCheckpoint):
            checkpoint.read(path)
    for kept in (0, 1, 100, -1, -73, -74):
        path.write_bytes(whole[:kept])
        with pytest.raises(CorruptCheckpoint, match=r"checkpoint\.pt"):
            checkpoint.read(path)


def test_a_corrupt_one_falls_back_to_the_previous_which_the_next_save_keeps(
    tmp_path: Path,
) -> None:
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    path = tmp_path / checkpoint.CURRENT
    path.write_bytes(path.read_bytes()[:-9])
    said: list[str] = []
    read = checkpoint.read_newest(tmp_path, said.append)
    assert read is not None and read["step"] == 1
    assert len(said) == 1 and checkpoint.PREVIOUS in said[0]
    checkpoint.set_corrupt_aside(tmp_path)
    checkpoint.save(tmp_path, state(3))
    assert checkpoint.read(path)["step"] == 3
    assert checkpoint.read(tmp_path / checkpoint.PREVIOUS)["step"] == 1


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_the_last_ones_are_kept(keep: int, tmp_path: Path) -> None:
    for step in range(6):
        checkpoint.save(tmp_path, state(step), keep)
    names = ["checkpoint.pt", "checkpoint.prev.pt", "checkpoint.prev2.pt", "checkpoint.prev3.pt"]
    kept = checkpoint.newest_first(tmp_path)
    assert [one.name for one in kept] == names[:keep]
    assert [checkpoint.read(one)["step"] for one in kept] == [5, 4, 3, 2][:keep]


def test_fewer_kept_and_one_that_cannot_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed delete costs nothing; the next save tries again."""
    for step in range(4):
        checkpoint.save(tmp_path, state(step), 4)

    unlink = Path.unlink

    def fail(self: Path, missing_ok: bool = False) -> None:
        if "prev" not in self.name:
            return unlink(self, missing_ok)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        checkpoint.save(tmp_path, state(4), 2)
    assert [checkpoint.read(one)["step"] for one in checkpoint.newest_first(tmp_path)[:2]] == [4, 3]
    checkpoint.save(tmp_path, state(5), 2)
    assert [one.name for one in checkpoint.newest_first(tmp_path)] == [
        "checkpoint.pt",
        "checkpoint.prev.pt",
    ]


def test_each_corrupt_one_is_named(tmp_path: Path) -> None:
    for step in range(4):
        checkpoint.save(tmp_path, state(step), 4)
    for path in checkpoint.newest_first(tmp_path)[:3]:
        path.write_bytes(path.read_bytes()[:-1])
    said: list[str] = []
    read = checkpoint.read_newest(tmp_path, said.append)
    assert read is not None and read["step"] == 0
    assert len(said) == 3 and all("checkpoint.prev3.pt" in line for line in said)


def test_a_snapshot_is_apart_and_shares_as_the_state_did() -> None:
    weight = torch.arange(4.0)
    row = [{"sa": 1.0}]
    before = {"a": weight, "tied": weight.view(4), "row": row, "part": weight[1:]}
    taken = checkpoint.snapshot(before)
    weight.fill_(9)
    row.append({})
    assert torch.equal(taken["a"], torch.arange(4.0)) and len(taken["row"]) == 1
    assert taken["a"] is taken["tied"] and torch.equal(taken["part"], torch.arange(1.0, 4.0))


def test_a_folder_without_a_whole_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.read_newest(tmp_path, pytest.fail) is None
    for name in (checkpoint.CURRENT, checkpoint.PREVIOUS):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(CorruptCheckpoint, match=r"checkpoint\.pt.*checkpoint\.prev\.pt"):
        checkpoint.read_newest(tmp_path, print)


@pytest.mark.parametrize("calls", range(5))
@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_kill_between_any_two_steps_of_a_save_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, calls: int
) -> None:
    checkpoint.save(tmp_path, state(1))
    checkpoint.save(tmp_path, state(2))
    original: Any = getattr(os, name)
    done: list[Any] = []

    def killed(*args: Any) -> Any:
        if len(done) == calls:
            raise KeyboardInterrupt
        done.append(args)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, killed)
        try:
            checkpoint.save(tmp_path, state(3))
        except KeyboardInterrupt:
            assert len(done) == calls
    read = checkpoint.read_newest(tmp_path, pytest.fail)
    assert read is not None and read["step"] >= 2
    assert torch.equal(read["weights"], state(read["step"])["weights"])


def test_pickled_code_is_not_executed(tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    payload = pickle.dumps({"weights": Malicious()}, protocol=2)
    digest = hashlib.sha256(payload).hexdigest().encode()
    path = tmp_path / checkpoint.CURRENT
    path.write_bytes(payload + b"\nentprop-sha256 " + digest + b"\n")
    with pytest.raises(CorruptCheckpoint):
        checkpoint.read(path)
    assert not (tmp_path / "executed").exists()


def test_random_state_round_trips_through_a_file(tmp_path: Path) -> None:
    def draws() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    device = torch.device("cpu")
    checkpoint.save(tmp_path, {"random": checkpoint.random_state(device)})
    expected = draws()
    draws()
    saved = checkpoint.read(tmp_path / checkpoint.CURRENT)
    checkpoint.restore_random_state(saved["random"], device)
    assert draws() == expected

"""A run folder has one writer at a time, and no killed one keeps it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from entprop_fast.lab.training.errors import UsageError
from entprop_fast.lab.training.run_folder import LOCK, RunFolder
from tests.children import end_with_parent
from tests.lab.conftest import Call

FORK = multiprocessing.get_context("fork")

pytestmark = pytest.mark.usefixtures("without_pictures")


def write(path: Path, says: int) -> None:
    """A run with a process that reads ahead for it, both of which never end by themselves."""
    end_with_parent()
    os.setpgid(0, 0)
    folder = RunFolder(path)
    folder.claim()
    if os.fork() > 0:
        os.write(says, b"\0")
    signal.pause()


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[int]:
    """The process that writes to `run`; what it forked lives to the end of the test."""
    hears, says = os.pipe()
    process = FORK.Process(target=write, args=(tmp_path / "run", says))
    process.start()
    assert os.read(hears, 1) == b"\0"
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        os.close(hears)
        os.close(says)


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_second_process_is_refused_until_the_first_dies(
    flag: str, writer: int, run: Call, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    error = run(out, flag, code=2)
    assert "another process writes" in error and str(out) in error
    assert [one.name for one in out.iterdir()] == [LOCK]

    os.kill(writer, signal.SIGKILL)
    assert os.waitid(os.P_PID, writer, os.WEXITED | os.WNOWAIT) is not None
    run(out, flag, "--corruptions", "none")
    assert (out / "summary.json").is_file() and not (out / LOCK).exists()


def test_a_refused_folder_is_gone_and_can_be_claimed_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    folder.claim()
    folder.release()
    assert not list(tmp_path.iterdir())
    folder.claim()
    assert (folder / LOCK).is_file()
    folder.release()


def test_a_lock_that_its_owner_has_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.claim()
    lockf = "entprop_fast.lab.training.run_folder.fcntl.lockf"
    # The first one ends between the second's opening the file and locking it.
    monkeypatch.setattr(lockf, lambda *arguments: first.release())
    with pytest.raises(UsageError, match="another process writes"):
        second.claim()

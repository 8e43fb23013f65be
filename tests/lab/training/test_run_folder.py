"""A run folder has one writer at a time, no killed one keeps it, and no link leads out of it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from entprop_fast.lab import files
from entprop_fast.lab.cli import corrupt, evaluate
from entprop_fast.lab.lease_file import LEASE
from entprop_fast.lab.training.run_folder import METRICS, RunFolder
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
    assert f"(process {writer} on {socket.gethostname()})" in error
    assert [one.name for one in out.iterdir()] == [LEASE]

    os.kill(writer, signal.SIGKILL)
    assert os.waitid(os.P_PID, writer, os.WEXITED | os.WNOWAIT) is not None
    run(out, flag, "--corruptions", "none")
    assert (out / "summary.json").is_file() and not (out / LEASE).exists()


def test_a_refused_folder_is_gone_and_can_be_claimed_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "new" / "run")
    folder.claim()
    folder.release()
    assert not list(tmp_path.iterdir())
    folder.claim()
    assert (folder / LEASE).is_file()
    folder.release()


# FOUND S2: a link, a second name or a pipe where a file is written is replaced, not followed.

Plant = Callable[[Path, Path], None]
NAMES = (
    *("config.toml.part", "metrics.jsonl.part", "summary.json.part", "model.safetensors.part"),
    *("checkpoint.pt.new", "checkpoint.pt.new.part", "checkpoint.prev.pt", "checkpoint.pt", LEASE),
    *("config.toml", "metrics.jsonl", "model.safetensors", "summary.json"),
)
PRECIOUS = b"precious\n"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "precious"
    path.write_bytes(PRECIOUS)
    return path


def linked(path: Path, target: Path) -> None:
    path.symlink_to(target)


def second_name(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def nowhere(path: Path, target: Path) -> None:
    path.symlink_to(target.with_name("made through a link"))


@pytest.mark.parametrize("plant", [linked, second_name, nowhere])
def test_a_run_writes_through_nothing(
    plant: Plant, target: Path, run: Call, tmp_path: Path
) -> None:
    """Every file of a run, and its lock."""
    out = tmp_path / "run"
    out.mkdir()
    for name in NAMES:
        plant(out / name, target)
    run(out, "--epochs", "1", "--overwrite", "--corruptions", "none")
    assert target.read_bytes() == PRECIOUS
    assert not (tmp_path / "made through a link").exists()
    assert all(not one.is_symlink() for one in out.iterdir())
    assert (out / "summary.json").is_file()


@pytest.mark.parametrize("plant", [linked, second_name, nowhere, lambda path, _: os.mkfifo(path)])
def test_the_lock_keeps_others_out_all_the_same(plant: Plant, target: Path, tmp_path: Path) -> None:
    """A pipe would have waited for a reader."""
    plant(tmp_path / LEASE, target)
    folder = RunFolder(tmp_path)
    folder.claim()
    assert (folder / LEASE).is_file() and not (folder / LEASE).is_symlink()
    folder.release()
    assert target.read_bytes() == PRECIOUS


def test_a_link_planted_while_a_run_goes_on(target: Path, tmp_path: Path) -> None:
    """Rows are added to the file that was begun."""
    folder = RunFolder(tmp_path)
    folder.begin("", fresh=True)
    (folder / METRICS).unlink()
    (folder / METRICS).symlink_to(target)
    with pytest.raises(OSError, match=METRICS):
        folder.append_row({"epoch": 1})
    assert target.read_bytes() == PRECIOUS


def test_a_folder_that_is_a_link_is_the_users_choice(run: Call, tmp_path: Path) -> None:
    """The neighbour that works: runs on another disk."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to("scratch")
    for out in (tmp_path / "run" / "one", tmp_path / "run"):
        run(out, "--epochs", "1", "--corruptions", "none")
    assert (tmp_path / "scratch" / "one" / "summary.json").is_file()
    assert (tmp_path / "scratch" / "summary.json").is_file()


def test_scores_reports_and_corrupted_sets(finished: Path, target: Path, tmp_path: Path) -> None:
    """``evaluate --out``, a file and a folder, and the arrays of corrupt."""
    report, made = tmp_path / "report", tmp_path / "set"
    report.mkdir()
    corrupted = ["--dataset", "digits", "--kinds", "contrast", "--device", "cpu", "--overwrite"]
    assert corrupt.main([*corrupted, "--out", str(made)]) == 0
    (made / "labels.npy").unlink()
    for path in (report / "scores.json.part", report / "evaluation.md.part", made / "labels.npy"):
        path.symlink_to(target)
    for name in ("contrast.npy.part", "entprop_fast.json.part"):
        (made / name).symlink_to(target)
    plain = [str(finished), "--device", "cpu", "--corruptions", "none"]
    for out in (report / "scores.json", report):
        assert evaluate.main([*plain, "--out", str(out)]) == 0
    assert corrupt.main([*corrupted, "--out", str(made)]) == 0
    assert target.read_bytes() == PRECIOUS
    for path in (report / "evaluation.md", made / "labels.npy"):
        assert path.is_file() and not path.is_symlink()


def test_folders_below_a_link_are_refused(tmp_path: Path) -> None:
    """The folders of kinds and classes that images go into."""
    elsewhere, root = tmp_path / "elsewhere", tmp_path / "set"
    elsewhere.mkdir()
    root.mkdir()
    assert files.folder_within(root, "fog", "1").is_dir()
    (root / "snow").symlink_to(elsewhere)
    with pytest.raises(OSError, match="link"):
        files.folder_within(root, "snow", "1")
    assert not list(elsewhere.iterdir())


def test_a_folder_in_the_way_is_an_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / "file.part").mkdir()
    with pytest.raises(OSError, match="file"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    (tmp_path / "file.part").rmdir()
    files.write_atomically(path, b"n", memoryview(b"ew"))
    assert path.read_bytes() == b"new" and not (tmp_path / "file.part").exists()

"""FOUND S2: a link, a second name or a pipe where a file is written is replaced, not followed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from entprop_fast.lab import files
from entprop_fast.lab.cli import corrupt, evaluate, train
from entprop_fast.lab.files import write_atomically
from entprop_fast.lab.training.run_folder import LOCK, METRICS, RunFolder
from tests.lab.conftest import Args

pytestmark = pytest.mark.usefixtures("without_pictures")

NAMES = (
    *("config.toml.part", "metrics.jsonl.part", "summary.json.part", "model.safetensors.part"),
    *("checkpoint.pt.new", "checkpoint.pt.new.part", "checkpoint.prev.pt", "checkpoint.pt", LOCK),
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
@pytest.mark.parametrize("names", [NAMES[:4], NAMES[4:9], NAMES[9:]], ids=["parts", "more", "own"])
def test_a_run_writes_through_nothing(
    names: tuple[str, ...],
    plant: Callable[[Path, Path], None],
    target: Path,
    tiny: Args,
    tmp_path: Path,
) -> None:
    """FOUND S2: every file of a run, and its lock."""
    out = tmp_path / "run"
    out.mkdir()
    for name in names:
        plant(out / name, target)
    assert train.main(tiny(out, "--epochs", "1", "--overwrite")) == 0
    assert target.read_bytes() == PRECIOUS
    assert not (tmp_path / "made through a link").exists()
    assert all(not one.is_symlink() for one in out.iterdir())
    assert (out / "summary.json").is_file()


@pytest.mark.parametrize("plant", [linked, second_name, nowhere, lambda path, _: os.mkfifo(path)])
def test_the_lock_keeps_others_out_all_the_same(
    plant: Callable[[Path, Path], None], target: Path, tmp_path: Path
) -> None:
    """FOUND S2: the lock; a pipe would have waited for a reader."""
    (tmp_path / "run").mkdir()
    plant(tmp_path / "run" / LOCK, target)
    folder = RunFolder(tmp_path / "run")
    folder.claim()
    assert (folder / LOCK).is_file() and not (folder / LOCK).is_symlink()
    folder.release()
    assert target.read_bytes() == PRECIOUS


def test_a_link_planted_while_a_run_goes_on(target: Path, tmp_path: Path) -> None:
    """FOUND S2: rows are added to the file that was begun."""
    folder = RunFolder(tmp_path / "run")
    folder.claim()
    folder.begin("", fresh=True)
    (folder / METRICS).unlink()
    (folder / METRICS).symlink_to(target)
    with pytest.raises(OSError, match=METRICS):
        folder.append_row({"epoch": 1})
    assert target.read_bytes() == PRECIOUS
    folder.release()


def test_a_folder_that_is_a_link_is_the_users_choice(tiny: Args, tmp_path: Path) -> None:
    """FOUND S2, the neighbour that works: runs on another disk."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "runs").symlink_to("scratch")
    assert train.main(tiny(tmp_path / "runs" / "one", "--epochs", "1")) == 0
    (tmp_path / "two").symlink_to("scratch")
    assert train.main(tiny(tmp_path / "two", "--epochs", "1")) == 0
    assert (tmp_path / "scratch" / "one" / "summary.json").is_file()
    assert (tmp_path / "scratch" / "summary.json").is_file()


def test_scores_and_reports(finished: Path, target: Path, tmp_path: Path) -> None:
    """FOUND S2: evaluate --out, a file and a folder."""
    plain = [str(finished), "--device", "cpu", "--corruptions", "none"]
    report = tmp_path / "report"
    report.mkdir()
    for path in (tmp_path / "scores.json.part", report / "evaluation.md.part"):
        path.symlink_to(target)
    assert evaluate.main([*plain, "--out", str(tmp_path / "scores.json")]) == 0
    assert evaluate.main([*plain, "--out", str(report)]) == 0
    assert target.read_bytes() == PRECIOUS
    assert (report / "evaluation.md").is_file()


def test_corrupted_sets(target: Path, tmp_path: Path) -> None:
    """FOUND S2: the arrays of corrupt."""
    out = tmp_path / "set"
    plain = ["--dataset", "digits", "--kinds", "contrast", "--device", "cpu", "--out", str(out)]
    assert corrupt.main(plain) == 0
    for name in ("contrast.npy.part", "labels.npy", "entprop_fast.json.part"):
        with contextlib.suppress(FileNotFoundError):
            (out / name).unlink()
        (out / name).symlink_to(target)
    assert corrupt.main([*plain, "--overwrite"]) == 0
    assert target.read_bytes() == PRECIOUS
    assert (out / "labels.npy").is_file() and not (out / "labels.npy").is_symlink()


def test_folders_below_a_link_are_refused(target: Path, tmp_path: Path) -> None:
    """FOUND S2: the folders of kinds and classes that images go into."""
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "set"
    root.mkdir()
    assert files.folder_within(root, "fog", "1").is_dir()
    (root / "snow").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        files.folder_within(root, "snow", "1")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_in_the_way_is_an_error_and_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / "file.part").mkdir()
    with pytest.raises(OSError, match="file"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    (tmp_path / "file.part").rmdir()
    write_atomically(path, b"n", memoryview(b"ew"))
    assert path.read_bytes() == b"new" and not (tmp_path / "file.part").exists()

"""FOUND S2: a link, a second name or a pipe where a file is written is replaced, not followed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from entprop_fast.lab import files
from entprop_fast.lab.cli import corrupt, evaluate, train
from entprop_fast.lab.training.run_folder import LOCK, METRICS, RunFolder
from tests.lab.conftest import Args

pytestmark = pytest.mark.usefixtures("without_pictures")

Plant = Callable[[Path, Path], None]
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
def test_a_run_writes_through_nothing(
    plant: Plant, target: Path, tiny: Args, tmp_path: Path
) -> None:
    """Every file of a run, and its lock."""
    out = tmp_path / "run"
    out.mkdir()
    for name in NAMES:
        plant(out / name, target)
    words = ("--epochs", "1", "--overwrite", "--corruptions", "none")
    assert train.main(tiny(out, *words)) == 0
    assert target.read_bytes() == PRECIOUS
    assert not (tmp_path / "made through a link").exists()
    assert all(not one.is_symlink() for one in out.iterdir())
    assert (out / "summary.json").is_file()


@pytest.mark.parametrize("plant", [linked, second_name, nowhere, lambda path, _: os.mkfifo(path)])
def test_the_lock_keeps_others_out_all_the_same(plant: Plant, target: Path, tmp_path: Path) -> None:
    """A pipe would have waited for a reader."""
    plant(tmp_path / LOCK, target)
    folder = RunFolder(tmp_path)
    folder.claim()
    assert (folder / LOCK).is_file() and not (folder / LOCK).is_symlink()
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


def test_a_folder_that_is_a_link_is_the_users_choice(tiny: Args, tmp_path: Path) -> None:
    """The neighbour that works: runs on another disk."""
    (tmp_path / "scratch").mkdir()
    (tmp_path / "run").symlink_to("scratch")
    for out in (tmp_path / "run" / "one", tmp_path / "run"):
        assert train.main(tiny(out, "--epochs", "1", "--corruptions", "none")) == 0
    assert (tmp_path / "scratch" / "one" / "summary.json").is_file()
    assert (tmp_path / "scratch" / "summary.json").is_file()


def test_scores_reports_and_corrupted_sets(finished: Path, target: Path, tmp_path: Path) -> None:
    """``evaluate --out``, a file and a folder, and the arrays of corrupt."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("scores.json.part", "evaluation.md.part", "contrast.npy.part", "labels.npy"):
        (folder / name).symlink_to(target)
    (folder / "entprop_fast.json.part").symlink_to(target)
    plain = [str(finished), "--device", "cpu", "--corruptions", "none"]
    for out in (folder / "scores.json", folder):
        assert evaluate.main([*plain, "--out", str(out)]) == 0
    plain = ["--dataset", "digits", "--kinds", "contrast", "--device", "cpu", "--overwrite"]
    assert corrupt.main([*plain, "--out", str(folder)]) == 0
    assert target.read_bytes() == PRECIOUS
    for name in ("evaluation.md", "labels.npy"):
        assert (folder / name).is_file() and not (folder / name).is_symlink()


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

"""The command: what it leaves, what it repeats, how it stops, what it refuses."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.cli import train
from entprop_fast.lab.cli.compare import main
from entprop_fast.lab.experiments import runner
from entprop_fast.lab.experiments.shared_runs import SharedRuns
from entprop_fast.lab.experiments.workers import Hear, do_runs
from entprop_fast.lab.stopping import Stopped

from .conftest import SMALL

ROWS = ("vanilla", "entprop:score=random")
AGAIN = ["--methods", *ROWS, "--seeds", "0", "1", *SMALL]


def table(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "compare.json").read_text())
    return found


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished comparison."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs one after the other, without the seconds that processes need to start."""

    def run_here(runs: SharedRuns, devices: Sequence[str], hear: Hear) -> None:
        do_runs(runs, (), hear)

    monkeypatch.setattr(runner, "do_runs", run_here)


def test_what_a_comparison_leaves(finished: Path, tmp_path: Path) -> None:
    folders = {f"{row}-{seed}" for row in ("vanilla", "entprop-score=random") for seed in (0, 1)}
    files = {"compare.json", "compare.md", "compare.png"}
    assert {path.name for path in finished.iterdir()} == folders | files
    found = table(finished)
    assert [row["name"] for row in found["methods"]] == list(ROWS)
    for row in found["methods"]:
        slug = row["name"].replace(":", "-")
        summaries = [
            json.loads((finished / f"{slug}-{seed}/summary.json").read_text()) for seed in (0, 1)
        ]
        assert row["runs"] == summaries
        scores = [summary["hscore"] for summary in summaries]
        assert row["scores"]["hscore"]["mean"] == pytest.approx(sum(scores) / 2)
    assert found["statement"] in (finished / "compare.md").read_text()
    # A run of a comparison is the run of the train command.
    out = tmp_path / "run"
    flags = ["--score", "random", "--seed", "1", "--threads", "1", "--out", str(out)]
    assert train.main([*SMALL, *flags]) == 0
    ours = finished / "entprop-score=random-1" / "model.safetensors"
    assert ours.read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("in_this_process")
def test_finished_runs_are_not_repeated_and_broken_ones_resume(
    finished: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "compare.json").unlink()
    broken = out / "vanilla-1"
    # As it stood after its first epoch, with a summary that was cut off.
    (broken / "checkpoint.prev.pt").replace(broken / "checkpoint.pt")
    (broken / "summary.json").write_text('{"sa": 1')
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/summary.json")}
    assert main([*AGAIN, "--out", str(out)]) == 0
    assert "4 runs, 3 finished before; 1 at a time" in capsys.readouterr().out
    changed = [path for path, then in kept.items() if path.stat().st_mtime_ns != then]
    assert changed == [broken / "summary.json"]
    same = "vanilla-1/model.safetensors"
    assert (out / same).read_bytes() == (finished / same).read_bytes()
    for ours, theirs in zip(table(out)["methods"], table(finished)["methods"], strict=True):
        assert ours["scores"] == theirs["scores"]
        assert ours["differences"] == theirs["differences"]


def test_other_settings_do_not_mix_with_the_folders(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*.*")}
    assert main([*AGAIN, "--lr", "0.05", "--out", str(finished)]) == 2
    assert "lr is 0.05, was 0.1" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in finished.rglob("*.*")} == before


@pytest.mark.usefixtures("in_this_process")
def test_runs_of_one_table_are_scored_on_the_same_images(
    finished: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = out / "vanilla-0/summary.json"
    other, kept = (out / f"entprop-score=random-{seed}" / "summary.json" for seed in (0, 1))
    before = json.loads(older.read_text())
    source = before.pop("corruption_source")
    older.write_text(json.dumps(before | {"ra": 1.0}))  # as a version before this one scored it
    other.write_text(json.dumps(json.loads(other.read_text()) | {"corruption_source": "official"}))
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    assert main([*AGAIN, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "2 finished runs were scored on others: evaluated again" in printed
    assert f"corruptions behind RA: {source}" in printed
    assert times[kept] == kept.stat().st_mtime_ns
    assert table(out)["corruption_source"] == source
    assert f"Corruptions: {source}." in (out / "compare.md").read_text()
    for ours, theirs in zip(table(out)["methods"], table(finished)["methods"], strict=True):
        assert ours["scores"] == theirs["scores"]
    for name in ("vanilla-0/model.safetensors", "vanilla-0/metrics.jsonl"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()
    assert main([*AGAIN, "--corruptions", "none", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "4 finished runs were scored on others" in printed and "RA –  Hscore –" in printed
    assert "Highest mean SA" in table(out)["statement"]
    assert [run["hscore"] for row in table(out)["methods"] for run in row["runs"]] == [None] * 4


def test_overwriting_that_was_stopped_is_gone_on_with_without_it(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND N7: else the command that it names would take the older runs for new ones."""

    def stopped(*_: object) -> None:
        raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "do_runs", stopped)
        assert main([*AGAIN, "--overwrite", "--out", str(out)]) == 143
    said = capsys.readouterr().err
    assert "0 of 4 runs are finished" in said
    assert said.rstrip().endswith(f"python -m entprop_fast.compare {shlex.join(AGAIN)} --out {out}")
    assert not list(out.glob("*/*"))


@pytest.mark.usefixtures("in_this_process")
def test_equal_passes_and_a_failed_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    rows = ["--methods", "vanilla", "free_at", "vanilla:lr=1e30,schedule=constant", "--seeds", "0"]
    passes = ["--budget", "passes", "--epochs", "4", "--jobs", "1"]
    assert main([*rows, *SMALL, *passes, "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "0, 1 failed" in printed.out and "1 of 3 runs" in printed.err
    vanilla, free, bad = table(out)["methods"]
    assert vanilla["cost"]["mean"] == free["cost"]["mean"] == 4.0
    assert (vanilla["epochs"], free["epochs"]) == (4, 1)
    assert (len(vanilla["runs"]), vanilla["failures"], bad["runs"]) == (1, [], [])
    assert bad["failures"][0]["seed"] == 0 and "at step" in bad["failures"][0]["error"]


# What is refused, and what the error names.
REFUSED = {
    "": "--methods",
    "--methods entprp": "entprop",
    "--methods entprop:k": "option=value",
    "--methods entprop:kk=1": "'kk'",
    "--methods entprop:k=few": "k='few'",
    "--methods entprop:n=1.5": "n='1.5'",
    "--methods entprop:k=1,k=1": "k twice",
    "--methods vanilla:k=0.5": "'k'",
    "--methods entprop:seed=1": "'seed'",
    "--methods vanilla vanilla": "one row",
    "--methods vanilla@augmix:severity=3 vanilla@augmix": "the same settings",
    "--methods entprop entprop:k=0.2": "'entprop:k=0.2'",
    "--methods vanilla mixup --k 0.2": "--k 0.2",
    "--methods vanilla entprop:k=0.3 --k 0.2": "--k 0.2",
    "--methods vanilla --baseline mixup": "'mixup'",
    "--methods vanilla --budget pass": "passes",
    "--methods vanilla --seeds 0 0": "--seeds",
    "--methods vanilla --seeds -1": "seed",
    "--methods vanilla --jobs 0": "--jobs",
    "--methods vanilla --recipe digitz": "digits",
    "--methods vanilla --seed 1": "--seeds",
    "--methods vanilla --threads 0": "threads",
    "--methods advprop --budget passes --epochs 3": "--epochs 4",
    "--methods free_at:epochs=2 --budget passes": "--budget passes",
    # Seen by a first step alone, of the last row.
    "--methods vanilla entprop --arch resnet18 --batch-size 5": "m=1",
    "--methods vanilla entprop:k=2": "'entprop:k=2'",
    "--methods vanilla --batch-size 41": "--batch-size = 41",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_refused_before_any_run_starts(
    flags: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    assert main([*SMALL, "--out", str(out), *flags.split()]) == 2
    error = capsys.readouterr().err
    assert REFUSED[flags] in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not out.parent.exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert main(["--methods", "vanilla", *SMALL, "--out", str(tmp_path / "file")]) == 2

"""What goes wrong in one process of a job ends all of them in time, and names it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.lab import checkpoint
from entprop_fast.lab.data import choose_loader
from entprop_fast.lab.training.rollback import Rollbacks
from entprop_fast.lab.training.trainer import Trainer
from tests.lab.conftest import assert_same, rows
from tests.lab.job.jobs import Jobs, Member, jobs_in
from tests.lab.training.faults import HangingImages, broken_after

EPOCHS = ("--epochs", "2", "--save-every", "1steps")
READERS = ("--loader", "prefetch", "--workers", "1", "--stall", "6s")
SOON = 60.0  # seconds
AT = 5  # the step, from 0, in which something happens: the second one of the second epoch


def at_step(act: Any) -> None:
    """Let something happen before a step."""
    take = Trainer._train_batch

    def train_batch(self: Trainer, *batch: Any) -> bool:
        if self.step == AT:
            act()
        return take(self, *batch)

    pytest.MonkeyPatch().setattr(Trainer, "_train_batch", train_batch)


def waits(gate: str, rank: int) -> None:
    """Let it wait for a file, and say so by another."""

    def wait() -> None:
        Path(f"{gate}.{rank}").touch()
        while not Path(gate).exists():
            time.sleep(0.02)

    at_step(wait)


def stands(note: str, rank: int) -> None:
    """Stop the second process as a debugger does, or a machine that swaps."""

    def stop() -> None:
        time.sleep(2.0)  # until it has told where it is
        Path(note).touch()
        os.kill(os.getpid(), signal.SIGSTOP)

    if rank == 1:
        at_step(stop)


def hangs(note: str, rank: int, *, fails: bool) -> None:
    """Let the second process's reader hang, or fail, after two of its batches."""
    if rank == 1:
        HangingImages.left, HangingImages.fails, HangingImages.note = 20, fails, Path(note)
        pytest.MonkeyPatch().setattr(choose_loader, "TensorDataset", HangingImages)


def breaks(rank: int) -> None:
    """Make a weight of the second process NaN."""
    if rank == 1:
        broken_after(pytest.MonkeyPatch(), AT)


def leaves_out(rank: int) -> None:
    """Take no such step."""
    skips = lambda self, step: step == AT  # noqa: E731
    pytest.MonkeyPatch().setattr(Rollbacks, "skips", skips)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    yield from jobs_in(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def standing(jobs: Jobs) -> list[Member]:
    """A job that begins before all others: 20 s pass until a silent process counts as gone."""
    out = jobs.folder / "standing"
    return jobs([*EPOCHS, "--out", str(out)], partial(stands, f"{out}.began"))


def seconds(began: Path, member: Member) -> float:
    """From what happened until it was said."""
    return (member.folder / f"{member.rank}.err").stat().st_mtime - began.stat().st_mtime


def one_line(member: Member, *parts: str) -> None:
    assert member.error.count("\n") == 1 and "Traceback" not in member.error, member.error
    for part in parts:
        assert part in member.error, member.error


def codes(job: list[Member]) -> list[int | None]:
    return [member.process.exitcode for member in job]


@pytest.mark.usefixtures("standing")
def test_two_jobs_on_one_folder(jobs: Jobs) -> None:
    """The second is refused, also one that would replace the run, and the first goes on."""
    out, gate = jobs.folder / "shared", jobs.folder / "gate"
    words = [*EPOCHS, "--out", str(out)]
    first, whole = jobs(words, partial(waits, str(gate))), jobs.folder / "whole"
    first[0].wait(lambda: all(Path(f"{gate}.{rank}").exists() for rank in range(2)))
    others = [jobs([*words, how]) for how in ("--resume", "--overwrite")]
    alone = jobs([*EPOCHS, "--out", str(whole)])
    jobs.ended(*others, alone)
    for other in others:
        assert codes(other) == [2, 2]
        one_line(other[0], "another process writes to the run folder", str(out))
        assert other[1].error == other[1].said == ""
    assert codes(first) == [None, None]
    gate.touch()
    jobs.ended(first)
    assert codes(first) == codes(alone) == [0, 0]
    assert_same(out, whole)


@pytest.mark.usefixtures("standing")
def test_a_reader_hangs_or_fails(jobs: Jobs) -> None:
    """In the second process: it is named with what it was doing, and both end."""
    begun = {}
    for name, fails in (("hangs", False), ("fails", True)):
        out = jobs.folder / name
        words = [*EPOCHS, *READERS, "--out", str(out)]
        begun[name] = jobs(words, partial(hangs, f"{out}.began", fails=fails))
    jobs.ended(*begun.values())
    for name, parts in (
        ("hangs", ("failed: rank 1 on ", "has stood still for", "reading a batch", "--stall")),
        ("fails", (": rank 1 on ", "Input/output error", "image ")),
    ):
        job = begun[name]
        assert codes(job) == [1, 1], (name, job[0].error, job[1].error)
        one_line(job[0], *parts)
        assert job[1].error == ""
        assert seconds(jobs.folder / f"{name}.began", job[0]) < SOON
        assert checkpoint.read_newest(jobs.folder / name, pytest.fail) is not None


@pytest.mark.usefixtures("standing")
def test_numbers_break_on_one_rank(jobs: Jobs) -> None:
    """All stop, or all go back and leave the step out."""
    begun = {
        name: jobs([*EPOCHS, *more, "--out", str(jobs.folder / name)], fault)
        for name, fault, more in (
            ("nan", breaks, ()),
            ("rolled back", breaks, ("--on-nan", "rollback")),
            ("left out", leaves_out, ("--on-nan", "rollback")),
        )
    }
    jobs.ended(*begun.values())
    assert codes(begun["nan"]) == [1, 1]
    one_line(begun["nan"][0], "NaN or infinite after step", "rank 1", "the last good checkpoint")
    assert begun["nan"][1].error == ""
    assert codes(begun["rolled back"]) == codes(begun["left out"]) == [0, 0]
    assert "left out (rollback 1 of 3)" in begun["rolled back"][0].said
    folders = [jobs.folder / name for name in ("rolled back", "left out")]
    weights = [checkpoint.read(one / checkpoint.CURRENT)["model"] for one in folders]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    losses = [[row["loss"] for row in rows(one)] for one in folders]
    assert losses[0] == losses[1]


@pytest.mark.usefixtures("standing")
def test_uneven_rows_are_refused_before_work_unless_ranks_are_exact(jobs: Jobs) -> None:
    """Of a last batch of 3 rows one process would have one; of one row, one none."""
    begun = {}
    for size in ("63", "61"):
        for ranks in ("independent", "exact"):
            words = ["--train-size", size, "--epochs", "1", "--ranks", ranks, "--mixup", "0"]
            out = jobs.folder / f"{ranks} {size}"
            begun[ranks, size] = out, jobs([*words, "--out", str(out)])
    jobs.ended(*(job for _, job in begun.values()))
    for (ranks, size), (out, job) in begun.items():
        if ranks == "exact":
            assert codes(job) == [0, 0], (size, job[0].error)
            continue
        assert codes(job) == [2, 2]
        one_line(job[0], "--no-drop-last", f"{int(size) % 20} rows for 2 processes", "exact")
        assert job[1].error == "" and not out.exists()


def test_a_process_stands_still(jobs: Jobs, standing: list[Member]) -> None:
    """It tells nothing: the other one names it, and ends; it ends itself once it goes on."""
    first, second = standing
    jobs.ended([first])
    assert first.process.exitcode == 1
    one_line(first, "failed: rank 1 on ", "is gone or hangs", "the last one while a step")
    assert seconds(jobs.folder / "standing.began", first) < SOON
    assert second.process.is_alive() and second.process.pid is not None
    before = (jobs.folder / "standing" / checkpoint.CURRENT).read_bytes()
    os.kill(second.process.pid, signal.SIGCONT)
    jobs.ended([second])
    assert second.process.exitcode == 1
    assert (jobs.folder / "standing" / checkpoint.CURRENT).read_bytes() == before

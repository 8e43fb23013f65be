"""Drill faults of one process: nothing is lost beyond the last checkpoint, not one bit differs."""

from __future__ import annotations

import resource
import shutil
import signal
import time
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from entprop_fast.lab import checkpoint
from entprop_fast.lab.cli import train
from entprop_fast.lab.data import choose_loader, readers
from entprop_fast.lab.training.errors import NotFinite, RunFailed
from entprop_fast.lab.training.rollback import Rollbacks
from entprop_fast.lab.training.trainer import Trainer
from tests.lab.conftest import Args, Call, assert_same, rows, summary
from tests.lab.training.faults import (
    HangingImages,
    SaveFault,
    broken_after,
    full,
    killed,
    train_in_child,
)

CALLS = 10  # of a save
BATCHES = 5  # of an epoch, in 3 steps
# Every draw there is, steps of two batches, an average, and a save after each of 3 steps.
OPTIONS = [
    *("--epochs", "1", "--batch-size", "7", "--accumulate", "2", "--augment", "crop-flip"),
    *("--ema", "0.9", "--save-every", "1steps", "--corruptions", "none"),
]
SAVES = 4  # of a run: after each step, and of the epoch

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture(scope="module")
def whole(tiny: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train.main(tiny(out, *OPTIONS)) == 0
    return out


def batches_saved(folder: Path) -> int:
    """The batches behind the newest whole checkpoint; no other one is damaged."""
    state = checkpoint.read_newest(folder, pytest.fail)
    assert state is not None
    batches: int = BATCHES * state["epoch"] + state["batch"]
    return batches


@pytest.mark.parametrize("number", range(CALLS))
def test_killed_at_every_call_of_a_save(
    number: int, whole: Path, tiny: Args, run: Call, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    prepare = lambda patch: SaveFault(patch, 1, number, killed)  # noqa: E731
    assert train_in_child(tiny(out, *OPTIONS), prepare) == -signal.SIGKILL
    assert batches_saved(out) == (4 if number == CALLS - 1 else 2)
    run(out, *OPTIONS, "--resume")
    assert_same(out, whole)


def test_a_save_has_as_many_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {})
    fault = SaveFault(monkeypatch, 0, CALLS, killed)
    checkpoint.save(tmp_path, {})
    assert fault.calls == CALLS


@pytest.mark.parametrize("number", range(CALLS))
def test_a_disk_full_within_an_epoch_is_a_warning(
    number: int, whole: Path, run: Call, tmp_path: Path
) -> None:
    """The run goes on, and its other checkpoints are saved."""
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        SaveFault(patch, 1, number, full)
        with pytest.warns(UserWarning, match=f"No space left.*{out}|{out}.*No space left"):
            run(out, *OPTIONS)
    assert batches_saved(out) == BATCHES
    assert not list(out.glob("*.part"))
    assert_same(out, whole)


@pytest.mark.parametrize("number", range(CALLS))
def test_a_disk_full_at_the_end_of_an_epoch_ends_the_run(
    number: int, whole: Path, run: Call, tmp_path: Path
) -> None:
    """With exit code 1 and the checkpoint before it in place."""
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        SaveFault(patch, SAVES - 1, number, full)
        said = run(out, *OPTIONS, code=1)
    assert "No space left" in said and f"the last good checkpoint is {out}" in said
    assert batches_saved(out) == BATCHES
    run(out, *OPTIONS, "--resume")
    assert_same(out, whole)


def test_a_limit_of_file_size_is_a_full_disk(
    whole: Path, tiny: Args, run: Call, tmp_path: Path
) -> None:
    """The kernel's own error, at every save: one warning, then the epoch's ends the run."""
    out = tmp_path / "run"

    def limit(patch: pytest.MonkeyPatch) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    assert train_in_child(tiny(out, *OPTIONS), limit) == 1
    assert checkpoint.read_newest(out, pytest.fail) is None
    run(out, *OPTIONS, "--resume")
    assert_same(out, whole)


def test_repeated_failures_warn_once(run: Call, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for save in (1, 2):
            SaveFault(patch, save, 0, full)
        run(tmp_path / "run", *OPTIONS)
    assert sum("no checkpoint was saved" in str(one.message) for one in said) == 1


@pytest.mark.parametrize("damage", ["cut to 0", "cut to a half", "cut by 1", "flipped bit"])
def test_the_newest_ones_are_torn(damage: str, whole: Path, run: Call, tmp_path: Path) -> None:
    """Of three kept, the newest two; each is named."""
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    shutil.copyfile(out / checkpoint.PREVIOUS, out / "checkpoint.prev2.pt")
    for name in (checkpoint.CURRENT, checkpoint.PREVIOUS):
        data = bytearray((out / name).read_bytes())
        size = len(data)
        data[size // 3] ^= 4 if damage == "flipped bit" else 0
        kept = {"cut to 0": 0, "cut to a half": size // 2, "cut by 1": size - 1}.get(damage, size)
        (out / name).write_bytes(data[:kept])
    said = run(out, *OPTIONS, "--resume", "--keep-checkpoints", "3")
    for name in (checkpoint.CURRENT, checkpoint.PREVIOUS):
        assert f"{out / name} is " in said
    assert "using checkpoint.prev2.pt" in said
    assert_same(out, whole)


def test_readers_that_hang_end_the_run(
    whole: Path, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon, with exit code 1; the run goes on with another number of readers, to the bit."""
    out, prefetch = tmp_path / "run", [*OPTIONS, "--loader", "prefetch"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose_loader, "TensorDataset", HangingImages)
        patch.setattr(readers, "_HUNG", 0.5)
        began = time.monotonic()
        said = run(out, *prefetch, "--workers", "1", code=1)
        assert time.monotonic() - began < 30
    assert "no training image came in 0.5 s" in said and "--workers" in said
    assert batches_saved(out) >= 2
    run(out, *prefetch, "--workers", "2", "--resume")
    assert_same(out, whole)


# NaN: weights are broken after a step; the loss of the next one, or the next save, tells.

ROLLBACK = [*OPTIONS, "--epochs", "2", "--on-nan", "rollback"]


def test_numbers_that_break_end_a_run_by_default(run: Call, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        broken_after(patch, 2)
        said = run(out, *OPTIONS, code=1)
    assert "NaN or infinite after step 2" in said and f"the last good checkpoint is {out}" in said
    assert batches_saved(out) == 2


@pytest.mark.parametrize("every", ["1steps", "100steps"])
def test_a_rollback_leaves_the_bad_steps_out(every: str, run: Call, tmp_path: Path) -> None:
    """The run ends as one that never took them."""
    found, expected = tmp_path / "found", tmp_path / "expected"
    options = [*ROLLBACK, "--save-every", every]
    with pytest.MonkeyPatch.context() as patch:
        broken_after(patch, 5)
        said = run(found, *options)
    left_out = {5} if every == "1steps" else {5, 6}  # a check of weights, or of the next loss
    assert said.count("left out (rollback 1 of 3)") == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollbacks, "skips", lambda self, step: step in left_out)
        run(expected, *options)
    assert_same_but_rollbacks(found, expected)
    assert summary(found)["rollbacks"] == 1
    assert [row["rollbacks"] for row in rows(found)] == [0, 1]


def test_killed_after_a_rollback(tiny: Args, run: Call, tmp_path: Path) -> None:
    """What was left out is left out again."""
    found, expected = tmp_path / "found", tmp_path / "expected"
    with pytest.MonkeyPatch.context() as patch:
        broken_after(patch, 2)
        run(expected, *ROLLBACK)

        def prepare(patch: pytest.MonkeyPatch) -> None:
            broken_after(patch, 2)
            SaveFault(patch, 4, 0, killed)

        assert train_in_child(tiny(found, *ROLLBACK), prepare) == -signal.SIGKILL
        run(found, *ROLLBACK, "--resume")
    assert_same_but_rollbacks(found, expected)


def test_rollbacks_that_lead_nowhere_end(run: Call, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        broken_after(patch, *range(2, 100))
        said = run(tmp_path / "run", *ROLLBACK, "--epochs", "20", "--save-every", "1h", code=1)
    assert "3 rollbacks" in said


def test_a_stop_where_numbers_have_broken_keeps_what_is_good(run: Call, tmp_path: Path) -> None:
    """The signal's exit code, with which a scheduler starts the run again."""
    out = tmp_path / "run"
    options = [*OPTIONS, "--on-nan", "rollback", "--save-every", "100steps"]
    with pytest.MonkeyPatch.context() as patch:
        broken_after(patch, 2)
        original = Trainer._train_batch

        def stopped(self: Trainer, *batch: Tensor) -> bool:
            if self.step == 1:
                signal.raise_signal(signal.SIGTERM)
            return original(self, *batch)

        patch.setattr(Trainer, "_train_batch", stopped)
        said = run(out, *options, code=128 + signal.SIGTERM)
    assert "stopped by SIGTERM: step 1 of " in said
    assert batches_saved(out) == 2


def test_checkpoints_of_steps_that_were_left_out_are_no_way_on() -> None:
    """Epochs shorter than what is left out save one after the other, and nothing is trained."""
    rollbacks, at = Rollbacks(allowed=True), 2
    for _ in range(3):
        rollbacks.take(NotFinite("loss is nan", at), at - 1)
        at += 1
    with pytest.raises(RunFailed, match="again after 3 rollbacks"):
        rollbacks.take(NotFinite("loss is nan", at), at - 1)
    assert "(rollback 1 of 3)" in rollbacks.take(NotFinite("loss is nan", 9), 8)


def assert_same_but_rollbacks(found: Path, expected: Path) -> None:
    states = [checkpoint.read(one / checkpoint.CURRENT) for one in (found, expected)]
    for name, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][name]), name
    assert_same_rows(*(rows(one) for one in (found, expected)))


def assert_same_rows(found: list[dict[str, object]], expected: list[dict[str, object]]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("loss", "aux_loss", "sa", "train_accuracy", "step"):
            assert ours[name] == theirs[name]

"""Exact ranks in whole runs: any number of processes, also one that changes at a resume."""

from __future__ import annotations

import functools
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import entprop_fast
from entprop_fast import data, models
from entprop_fast.lab import stopping
from entprop_fast.lab.training import finish
from entprop_fast.lab.training.trainer import Trainer
from tests.lab.conftest import rows
from tests.processes import in_two_processes

ROWS, BATCH, EPOCHS = 63, 20, 3  # of the last batch of an epoch a fourth process has no row
STOPPED = 6  # steps of 12
METRICS = ("loss", "aux_loss", "train_accuracy", "sa", "step")
NEAR = 1e-6


def train(out: Path, **more: Any) -> dict[str, torch.Tensor]:
    """Train in float64 with every draw there is; the weights in the end."""
    torch.manual_seed(0)
    network = models.create("wrn10_0.5", num_classes=10, in_channels=1).double()
    digits = data.load("digits", train_size=ROWS)
    options: dict[str, Any] = {
        **{
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "drop_last": False,
            "augment": "crop-flip+augmix",
        },
        **{"k": 0.3, "n": 2, "mixup": 0.2, "ranks": "exact", "lr": 0.05, "corruptions": "none"},
        **{"device": "cpu", "threads": 1, "verbose": False, "out": out},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "_draw", lambda *args: None)
        entprop_fast.fit(
            network,
            (digits.train_images, digits.train_labels),
            (digits.test_images[:50], digits.test_labels[:50]),
            **(options | more),
        )
    return network.state_dict()


def begin(out: Path, **more: Any) -> None:
    """Begin that run, and stop it in the midst of an epoch, as a signal does."""
    between_steps = Trainer._between_steps

    def between(self: Trainer, *args: Any) -> None:
        between_steps(self, *args)
        if self.step == STOPPED:
            stopping.stop(signal.SIGTERM, False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_between_steps", between)
        with pytest.raises(stopping.Stopped):
            train(out, **more)


def work(folder: str, rank: int) -> dict[str, Any]:
    """A whole run, one that others began, and in two processes some for others to go on with."""
    root, world = Path(folder), torch.distributed.get_world_size()
    weights = train(root / f"whole {world}")
    for begun in sorted(root.glob(f"from * to {world}")):
        train(begun, resume=True)
    if world == 2:
        begin(root / "from 2 to 1")
        begin(root / "from 2 to 4")
        begin(root / "independent", ranks="independent", drop_last=True)
    return {"weights": weights}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, torch.Tensor]]]:
    root = tmp_path_factory.mktemp("runs")
    alone = train(root / "whole 1")
    begin(root / "from 1 to 2")
    do = functools.partial(work, str(root))
    found = [one["weights"] for one in in_two_processes(do, tmp_path_factory.mktemp("two"))]
    found += [one["weights"] for one in in_two_processes(do, tmp_path_factory.mktemp("four"), 4)]
    train(root / "from 2 to 1", resume=True)
    return root, [alone, *found]


def far(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> float:
    """The largest relative difference of any metric of any epoch."""
    assert [row["epoch"] for row in found] == [row["epoch"] for row in expected]
    pairs: list[tuple[float, float]] = [
        (ours[name], theirs[name])
        for ours, theirs in zip(found, expected, strict=True)
        for name in METRICS
    ]
    return max(abs(ours - theirs) / max(1.0, abs(theirs)) for ours, theirs in pairs)


def test_one_two_and_four_processes_are_one(
    runs: tuple[Path, list[dict[str, torch.Tensor]]],
) -> None:
    """Metrics of every epoch, and all weights in the end."""
    root, weights = runs
    alone = rows(root / "whole 1")
    assert len(alone) == EPOCHS and len(weights) == 1 + 2 + 4
    for world in (2, 4):
        assert far(rows(root / f"whole {world}"), alone) < NEAR, world
    for found in weights[1:]:
        for name, value in found.items():
            torch.testing.assert_close(value, weights[0][name], rtol=NEAR, atol=NEAR)


@pytest.mark.parametrize("change", ["1 to 2", "2 to 1", "2 to 4"])
def test_the_number_of_processes_changes_at_a_resume(
    change: str, runs: tuple[Path, list[dict[str, torch.Tensor]]]
) -> None:
    """In the midst of an epoch: its metrics, too, are those of the run that nothing disturbed."""
    root, _ = runs
    assert far(rows(root / f"from {change}"), rows(root / "whole 1")) < NEAR


def test_independent_ranks_go_on_in_another_number(
    runs: tuple[Path, list[dict[str, torch.Tensor]]], capsys: pytest.CaptureFixture[str]
) -> None:
    """What they had of their own is joined; that is no longer the same run, and a line says so."""
    out = runs[0] / "independent"
    train(out, ranks="independent", drop_last=True, resume=True, verbose=True)
    assert "saved by 2 processes, continued by 1: not bit for bit" in capsys.readouterr().out
    found = rows(out)
    assert [row["epoch"] for row in found] == [1, 2, 3]
    assert all(math.isfinite(row["loss"]) for row in found)

"""Logs hold each epoch of a run once, whatever ended it in between."""

from __future__ import annotations

import csv
import json
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.training import loggers
from entprop_fast.lab.training.loggers import CsvLog, WandbLog, names_of
from tests.lab.conftest import Call, rows, stop_at

pytestmark = pytest.mark.usefixtures("without_pictures")

ROWS = [
    {"epoch": number, "loss": 1 / number, "aux_loss": float("nan"), "seconds": 0.5, "signatures": s}
    for number, s in ((1, []), (2, ["falling SA", "overfitting"]), (3, []))
]


def test_a_resumed_run_goes_on_in_the_same_logs(run: Call, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["--log", "csv,tensorboard", "--corruptions", "none"]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3, signal.SIGTERM)
        run(out, *words, code=143)
    # As a kill between the checkpoint and the log would leave it:
    lines = (out / "metrics.csv").read_text().splitlines()
    (out / "metrics.csv").write_text(f"{lines[0]}\n")
    run(out, *words, "--resume")
    with (out / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    recorded = rows(out)
    assert [int(line["epoch"]) for line in found] == [1, 2, 3]
    for line, row in zip(found, recorded, strict=True):
        assert float(line["loss"]) == row["loss"] and float(line["sa"]) == row["sa"]
    scalars = tensorboard_scalars(out / "tensorboard")
    assert scalars["loss"] == [(row["epoch"], pytest.approx(row["loss"])) for row in recorded]
    assert scalars["sa"] == [(row["epoch"], pytest.approx(row["sa"])) for row in recorded]
    assert len(scalars["final/sa"]) == 1 and "signatures" not in scalars


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Read every event file there, without TensorBoard's own filters."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util import tensor_util

    found: dict[str, list[tuple[int, Any]]] = {}
    for file in sorted(folder.iterdir()):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                number = float(tensor_util.make_ndarray(value.tensor))
                found.setdefault(value.tag, []).append((event.step, number))
    return found


def test_lines_of_csv(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "metrics.csv", [])
    for row in ROWS:
        log.write(row)
    text = (tmp_path / "metrics.csv").read_text()
    assert text.splitlines() == [
        "epoch,loss,aux_loss,seconds,signatures",
        "1,1.0,,0.5,",
        "2,0.5,,0.5,falling SA; overfitting",
        "3,0.3333333333333333,,0.5,",
    ]
    CsvLog(tmp_path / "again.csv", ROWS)
    assert (tmp_path / "again.csv").read_text() == text


class FakeRun:
    def __init__(self, **given: Any) -> None:
        self.given = given
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.summary: dict[str, float] = {}

    def log(self, row: dict[str, float], step: int) -> None:
        self.rows.append((step, row))

    def finish(self) -> None:
        self.given["ended"] = True


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = types.ModuleType("wandb")
    module.init, module.Settings, module.Error = FakeRun, dict, RuntimeError
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_is_sent_each_epoch_once(fake_wandb: Any, tmp_path: Path) -> None:
    first: Any = WandbLog(tmp_path, {"lr": 1}, [])
    first.write(ROWS[0])
    # Killed after the checkpoint of epoch 2, before its row was sent.
    second: Any = WandbLog(tmp_path, {"lr": 1}, ROWS[:2])
    second.write(ROWS[1])
    second.write(ROWS[2])
    second.finish({"hscore": 50.0})
    second.close()
    assert first.id == second.id and second._run.given["id"] == first.id
    assert second._run.given["resume"] == "allow" and second._run.given["ended"]
    sent = [*first._run.rows, *second._run.rows]
    assert [step for step, _ in sent] == [1, 2, 3]
    assert sent[1][1] == {"epoch": 2, "loss": 0.5, "seconds": 0.5}
    assert second._run.summary == {"final/hscore": 50.0}
    assert json.loads((tmp_path / "wandb.json").read_text()) == {"id": first.id, "epochs": 3}


def test_a_damaged_state_is_named(fake_wandb: Any, tmp_path: Path) -> None:
    (tmp_path / "wandb.json").write_text('{"id": "x", "epochs": "many"}')
    with pytest.raises(OSError, match=r"wandb\.json"):
        WandbLog(tmp_path, {}, [])


def test_wandb_offline_writes_into_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library itself, without a network."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    loggers.check_ready("wandb")
    log = WandbLog(tmp_path, {"lr": 1}, ROWS[:1])
    log.write(ROWS[1])
    log.finish({"sa": 1.0})
    log.close()
    wandb.teardown()
    (kept,) = (tmp_path / "wandb").glob(f"offline-run-*-{log.id}/run-{log.id}.wandb")
    assert kept.stat().st_size > 0


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_library_is_named_before_any_work(
    name: str, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    error = run(tmp_path / "run", "--log", f"csv,{name}", code=2)
    assert name in error and "entprop_fast[loggers]" in error
    assert not (tmp_path / "run").exists()


def test_wandb_without_an_account_is_refused_before_any_work(
    fake_wandb: Any, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def login() -> None:
        raise RuntimeError("no key")

    fake_wandb.login = login
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert "log='wandb'" in run(tmp_path / "run", "--log", "wandb", code=2)
    assert not (tmp_path / "run").exists()


def test_names() -> None:
    assert names_of("csv, wandb,csv") == ("csv", "wandb")
    assert names_of(("csv",)) == ("csv",) and names_of(None) == names_of("") == ()

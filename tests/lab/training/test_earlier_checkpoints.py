"""Issue 16, point 8: a run folder of every version whose layout differs, in tests/checkpoints.

Each was interrupted after the first of two epochs, but for its model.safetensors and summary.json,
which are of the finished run. A version that changes the layout adds a folder, and keeps these.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab import checkpoint
from entprop_fast.lab.cli import evaluate, train
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.config import differences
from entprop_fast.lab.training.load_network import load_network

FOLDER = Path(__file__).parents[2] / "checkpoints"
VERSIONS = sorted(one.name for one in FOLDER.iterdir())

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture(params=VERSIONS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the version's run folder."""
    return Path(shutil.copytree(FOLDER / request.param, tmp_path / "run"))


def test_it_is_continued(run: Path) -> None:
    assert checkpoint.read(run / "checkpoint.pt")["epoch"] == 1
    assert train.main(["--resume", "--out", str(run)]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]


def test_its_network_scores_what_it_scored(run: Path, tmp_path: Path) -> None:
    deployed = run / "model.safetensors"
    out = tmp_path / "scores.json"
    assert evaluate.main([str(deployed), "--device", "cpu", "--out", str(out)]) == 0
    found, then = (json.loads(one.read_text()) for one in (out, run / "summary.json"))
    assert found["sa"] == pytest.approx(then["sa"], abs=0.5)  # another machine's last bits
    assert found["hscore"] == pytest.approx(then["hscore"], abs=0.5)


def saved_again(run: Path, change: Any) -> None:
    state = checkpoint.read(run / "checkpoint.pt")
    change(state)
    checkpoint.save(run, state)


def test_a_setting_that_is_no_more_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved_again(run, lambda state: state["config"].update(wibble=3))
    assert train.main(["--resume", "--out", str(run)]) == 2
    assert "wibble is None, was 3" in capsys.readouterr().err


def test_a_setting_that_was_not_there_yet_was_its_default(run: Path) -> None:
    saved = checkpoint.read(run / "checkpoint.pt")["config"]
    for name in ("warmup", "loader"):
        saved.pop(name, None)
    saved["options"].pop("attack_loss")
    config = recipe.resolve(run / "config.toml")
    assert differences(config, saved) == []
    other = recipe.resolve(run / "config.toml", attack_loss="cw", warmup=0.5)
    assert [one.partition(" is")[0] for one in differences(other, saved)] == [
        "attack_loss",
        "warmup",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("meter"), "meter"),
        (lambda state: state.update(epoch=7), "epoch is 7"),
        (lambda state: state.update(seconds="long"), "seconds is 'long'"),
        (lambda state: state["rows"][0].pop("sa"), "sa"),
        (lambda state: state.update(config=3), "config is 3"),
        (lambda state: state["method"].update(rows={}), "rows is {}"),
        (lambda state: state["meter"]["sums"].update(loss="low"), "loss is 'low'"),
        (lambda state: state["model"].popitem(), "another version's"),
    ],
    ids=["missing", "beyond", "type", "row", "config", "method", "meter", "weights"],
)
def test_what_does_not_fit_is_named(
    change: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(FOLDER / VERSIONS[-1], tmp_path / "run"))
    saved_again(run, change)
    assert train.main(["--resume", "--out", str(run)]) == 2
    error = capsys.readouterr().err
    assert words in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_network_that_is_not_trained_to_its_end_is_named(run: Path) -> None:
    """Its scores would stand beside those of whole runs without a word."""
    told: list[str] = []
    load_network(run, told.append)
    assert len(told) == 1 and "1 of 2 epochs" in told[0]
    told.clear()
    load_network(run / "model.safetensors", told.append)
    assert not told

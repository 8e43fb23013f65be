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
from entprop_fast.lab.training.load_network import load_network
from entprop_fast.lab.training.run_differences import differences
from tests.lab.conftest import Call, rows, summary

FOLDER = Path(__file__).parents[2] / "checkpoints"
VERSIONS = sorted(one.name for one in FOLDER.iterdir())

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the version's run folder."""
    return Path(shutil.copytree(FOLDER / request.param, tmp_path / "run"))


def test_its_network_scores_what_it_scored(old: Path, tmp_path: Path) -> None:
    out, then = tmp_path / "scores.json", summary(old)
    deployed = str(old / "model.safetensors")
    assert evaluate.main([deployed, "--device", "cpu", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["sa"] == pytest.approx(then["sa"], abs=0.5)  # another machine's last bits
    assert found["hscore"] == pytest.approx(then["hscore"], abs=0.5)


def test_it_is_continued(old: Path, call: Call) -> None:
    """A network that is not trained to its end would stand beside whole ones without a word."""
    told: list[str] = []
    load_network(old, told.append)
    assert len(told) == 1 and "1 of 2 epochs" in told[0]
    load_network(old / "model.safetensors", pytest.fail)
    call(train, ["--resume", "--out", str(old)])
    assert [row["epoch"] for row in rows(old)] == [1, 2]


def test_a_setting_that_was_not_there_yet_was_its_default(old: Path) -> None:
    saved = checkpoint.read(old / "checkpoint.pt")["config"]
    for name in ("warmup", "loader"):
        saved.pop(name, None)
    saved["options"].pop("attack_loss")
    assert differences(recipe.resolve(old / "config.toml"), saved) == []
    other = differences(recipe.resolve(old / "config.toml", attack_loss="cw", warmup=0.5), saved)
    assert [one.partition(" is")[0] for one in other] == ["attack_loss", "warmup"]


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
        (lambda state: state["config"].update(wibble=3), "wibble is None, was 3"),
    ],
    ids=["missing", "beyond", "type", "row", "config", "method", "meter", "weights", "setting"],
)
def test_what_does_not_fit_is_named(change: Any, words: str, call: Call, tmp_path: Path) -> None:
    old = Path(shutil.copytree(FOLDER / VERSIONS[-1], tmp_path / "run"))
    state = checkpoint.read(old / "checkpoint.pt")
    change(state)
    checkpoint.save(old, state)
    assert words in call(train, ["--resume", "--out", str(old)], 2)

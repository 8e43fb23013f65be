"""Averages, accumulated gradients and held-out scores survive whatever ends a process."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast.lab import stopping
from entprop_fast.lab.checkpoint import read
from entprop_fast.lab.cli import compare, train
from entprop_fast.lab.training.durations import Interval, interval_of, seconds_of
from entprop_fast.lab.training.load_network import load_network
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.save_times import SaveTimes
from tests.children import end_with_parent
from tests.lab.conftest import Args, Call, assert_same, rows, stop_at, summary

FORK = multiprocessing.get_context("fork")
OPTIONS = {
    "ema": ["--ema", "0.5"],
    "accumulate": ["--accumulate", "2", "--batch-size", "8"],
    "early stopping": ["--validation", "0.3", "--patience", "2", "--train-size", "60"],
    "saved within epochs": ["--save-every", "1steps", "--batch-size", "10"],
}

pytestmark = pytest.mark.usefixtures("without_pictures")


@pytest.fixture(scope="module", params=OPTIONS)
def options(request: pytest.FixtureRequest) -> list[str]:
    return [*OPTIONS[request.param], "--corruptions", "none"]


@pytest.fixture(scope="module")
def whole(options: list[str], tiny: Args, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of these options that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train.main(tiny(out, *options)) == 0
    return out


def killed_at(step: int, arguments: list[str]) -> None:
    """Train in a process of its own that dies in the middle of a step."""

    def child() -> None:
        end_with_parent()
        stop_at(pytest.MonkeyPatch(), step, signal.SIGKILL)
        train.main(arguments)

    process = FORK.Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def assert_same_best(found: Path, expected: Path) -> None:
    assert (found / "best.pt").exists() == (expected / "best.pt").exists()
    if (expected / "best.pt").exists():
        ours, theirs = read(found / "best.pt"), read(expected / "best.pt")
        assert (ours["epoch"], ours["hscore"]) == (theirs["epoch"], theirs["hscore"])
        assert all(
            torch.equal(ours["model"][name], theirs["model"][name]) for name in ours["model"]
        )


def test_killed_and_resumed(
    options: list[str], whole: Path, tiny: Args, run: Call, tmp_path: Path
) -> None:
    out, steps = tmp_path / "run", rows(whole)[-1]["step"]
    killed_at(steps // 2 + 1, tiny(out, *options))
    if "--save-every" in options:  # of 4 steps an epoch: the second one's last is not done
        assert read(out / "checkpoint.pt")["batch"] > 0
    run(out, *options, "--resume")
    assert_same(out, whole)
    assert_same_best(out, whole)


def test_stopped_in_an_epoch_and_resumed(
    options: list[str], whole: Path, run: Call, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        # In the first batch of the second epoch, which is half of a step where two are one.
        stop_at(patch, rows(whole)[0]["step"], signal.SIGTERM)
        run(out, *options, code=143)
    run(out, *options, "--resume")
    assert_same(out, whole)
    assert_same_best(out, whole)


def test_what_is_deployed_is_what_evaluate_loads(whole: Path) -> None:
    """The averaged or best network, also out of a checkpoint."""
    deployed, *_ = load_network(whole / "model.safetensors")
    again, *_ = load_network(whole, pytest.fail)
    state = again.state_dict()
    for name, value in deployed.state_dict().items():
        assert torch.equal(state[name], value), name


@pytest.fixture
def times_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the time of ``--time`` be over at the n-th look at the clock."""

    def after(looks: int) -> None:
        left = iter(range(looks))
        near = lambda limit: next(left, None) is None  # noqa: E731
        monkeypatch.setattr(stopping.TimeLimit, "near", near)

    return after


def test_a_time_limit_saves_and_says_how_to_go_on(
    finished: Path, run: Call, tmp_path: Path, times_up: Callable[[int], None]
) -> None:
    out = tmp_path / "run"
    times_up(8)
    said = run(out, "--time", "2h")
    assert "stopped by the time limit of 2h: step " in said and not (out / "summary.json").exists()
    assert f"is saved in {out}/checkpoint.pt; to go on: python -m entprop_fast.train" in said
    times_up(1000)
    run(out, "--time", "2h", "--resume")
    assert_same(out, finished)


def test_a_time_limit_ends_an_evaluation_too(
    run: Call, tmp_path: Path, times_up: Callable[[int], None], finished: Path
) -> None:
    out = tmp_path / "run"
    times_up(30)
    assert "the run is trained" in run(out, "--time", "2h")
    times_up(1000)
    run(out, "--resume")
    assert summary(out)["sa"] == summary(finished)["sa"]


def test_a_limit_leaves_time_for_the_usual_step_and_a_save(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = stopping.TimeLimit(60, "1m")
    limit.reserve = 5.0
    assert not limit.near()
    now += 40  # a preparation
    assert limit.near()
    limit.forget()
    ended = []
    for _ in range(20):
        now += 1
        ended.append(limit.near())
    assert ended.index(True) == 13  # 140 + 14, a step of 1 and a save of 5 are 160


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("30s", 30), ("10 min", 600), ("0.5d", 43200)],
)
def test_spans_of_time(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert interval_of(text) == Interval(seconds=seconds)


def test_intervals_of_steps_and_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interval_of("500steps") == interval_of("500 steps") == Interval(steps=500)
    assert [step for step in range(1, 9) if SaveTimes("3steps").due(step)] == [3, 6]
    assert not any(map(SaveTimes(None).due, range(9)))
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    times, due = SaveTimes("10s"), []
    for now in range(0, 40, 4):  # noqa: B007
        due.append(times.due(1))
    assert [4 * i for i, one in enumerate(due) if one] == [12, 24, 36]


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("time", "2", ValueError),
        ("time", "0s", ValueError),
        ("time", 7200, TypeError),
        ("save_every", "500", ValueError),
        ("save_every", "0steps", ValueError),
        ("save_every", "-1min", ValueError),
        ("log", "cvs", ValueError),
        ("log", 3, TypeError),
        ("ema", 1.0, ValueError),
        ("ema", 0, ValueError),
        ("accumulate_batches", 0, ValueError),
        ("validation", 1.0, ValueError),
        ("patience", 3, ValueError),  # without held-out images
        ("layer_decay", 0, ValueError),
        ("warmup_epochs", 1, ValueError),  # of onecycle
    ],
)
def test_settings_that_are_refused(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        resolve("digits", **{name: value})


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with pytest.raises(ValueError, match="warmup_epochs"):
        resolve("digits", schedule="cosine", warmup_epochs=61)


def test_a_comparison_has_no_time_limit(call: Call, tiny: Args, tmp_path: Path) -> None:
    """It would stop runs one by one; in a recipe it is refused, and there is no such flag."""
    recipe = tmp_path / "recipe.toml"
    table = 'arch = "wrn10_0.5"\ndataset = "digits"\nepochs = 1\nbatch_size = 20\nlr = 0.1\n'
    recipe.write_text(f'{table}time = "2h"\n[method]\nname = "vanilla"\n')
    words = ["--recipe", str(recipe), "--methods", "vanilla", "--seeds", "0", "--device", "cpu"]
    assert "time" in call(compare, [*words, "--out", str(tmp_path / "out")], 2)
    assert "--time" in call(compare, [*words, "--time", "2h"], 2)


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing(run: Call, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = run(out, "--dry-run", "--ema", "0.9", "--accumulate", "2", "--validation", "0.3")
    assert not list(tmp_path.iterdir())
    assert 'arch = "wrn10_0.5"' in said and "ema = 0.9" in said
    # 28 of 40 images are left, in one batch of 20 an epoch; a fifth of them goes through again.
    assert f"cost: {3 * 24 / 28:.2f} passes over 28 training images, in 3 steps" in said
    for line in ("one step: ", "memory: ", "estimated: ", "nothing was trained"):
        assert f"\n{line}" in said


def test_a_dry_run_refuses_what_a_run_does(run: Call, tmp_path: Path) -> None:
    assert "--accumulate=2" in run(
        tmp_path / "run", "--dry-run", "--method", "free_at", "--accumulate", "2", code=2
    )


def test_a_run_without_these_options_has_nothing_of_them(finished: Path) -> None:
    assert not {"ema", "best"} & read(finished / "checkpoint.pt").keys()
    assert not [name for name in rows(finished)[0] if name.startswith("validation")]
    assert not (finished / "best.pt").exists() and not (finished / "metrics.csv").exists()

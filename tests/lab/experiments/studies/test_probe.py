"""Runs under a probe: trained once, and gone on with after a stop or a kill."""

from __future__ import annotations

import functools
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab import stopping
from entprop_fast.lab.experiments.studies import Options, bias, entropy, norms, probe, score
from entprop_fast.lab.experiments.studies.other_transforms import Replaced
from entprop_fast.lab.experiments.studies.probe import RECORD, STATE, MakeProbe, Probe
from entprop_fast.lab.experiments.studies.runs import run_grid
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.errors import RunFailed, Stopped, UsageError
from entprop_fast.lab.training.run_folder import RunFolder

PROBES: dict[str, MakeProbe] = {
    "none": Probe,
    "entropies": entropy.Entropies,
    "overlap": score.Overlap,
    "norms": norms.Norms,
    "selections": bias.Selections,
    "transformed": functools.partial(Replaced, rows="gamma"),
}
Whole = Callable[[Options, str], dict[str, Any]]
TIMES = {"seconds", "images_per_second", "folder"}


def run(options: Options, make: MakeProbe, **settings: Any) -> dict[str, Any]:
    """Do one run, in this process; its record."""
    variants = {"it": {"method": "entprop", "capture": "off", "batch_size": 16, **settings}}
    ((record,),) = run_grid(options, variants, Reporter.quiet(), make).values()
    return record


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in TIMES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The record of an uninterrupted run, made once."""
    out = tmp_path_factory.mktemp("whole")
    return lambda options, name: run(replace(options, out=out), PROBES[name])


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of the runs that began anew, once for each time."""
    folders: list[Path] = []
    clear = RunFolder.clear

    def noted(self: RunFolder) -> None:
        folders.append(self.path)
        clear(self)

    monkeypatch.setattr(RunFolder, "clear", noted)
    return folders


class StopAfter(stopping.StopSignals):
    """Signals of which one comes after so many looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def look(self) -> int | None:
        self.looks -= 1
        return signal.SIGTERM if self.looks < 0 else None

    pending: Any = property(look, lambda self, value: None)


@pytest.mark.parametrize("name", PROBES)
def test_a_stopped_run_goes_on_where_it_was(
    name: str, tiny: Options, whole: Whole, begun: list[Path]
) -> None:
    expected = whole(tiny, name)
    begun.clear()
    record, looks, stops = None, 4, 0
    while record is None:
        try:
            with stopping.watched(StopAfter(looks)):
                record = run(tiny, PROBES[name])
        except Stopped:
            looks, stops = looks + 3, stops + 1
    assert stops > 3 and len(begun) == 1
    assert without_times(record) == without_times(expected)


class Killed(BaseException):
    """What no code of ours answers."""


@pytest.mark.parametrize("name", ["entropies", "selections"])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_killed_before_its_probe_was_kept(
    name: str,
    epoch: int,
    tiny: Options,
    whole: Whole,
    begun: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was not seen is looked at again; what is counted in training begins anew."""
    expected = whole(tiny, name)
    keep = probe._keep

    def killed(watching: Probe) -> None:
        if watching.trainer.epoch == epoch:
            raise Killed
        keep(watching)

    begun.clear()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(probe, "_keep", killed)
        run(tiny, PROBES[name])
    assert without_times(run(tiny, PROBES[name])) == without_times(expected)
    assert len(begun) == (2 if name == "selections" else 1)


@pytest.mark.parametrize("damage", ["", "{}", '{"epoch": 1, "step": 4, "state": 7}', "[]"])
def test_a_probe_that_lost_its_state_begins_anew(
    damage: str, tiny: Options, whole: Whole, begun: list[Path]
) -> None:
    expected = whole(tiny, "selections")
    run(tiny, PROBES["selections"])
    next(tiny.out.rglob(RECORD)).write_text(damage)
    next(tiny.out.rglob(STATE)).write_text(damage)
    begun.clear()
    assert without_times(run(tiny, PROBES["selections"])) == without_times(expected)
    assert len(begun) == 1


def test_a_run_is_trained_once(tiny: Options, begun: list[Path]) -> None:
    first = run(tiny, PROBES["norms"])
    assert first["gap"] == pytest.approx(first["train_accuracy"] - first["sa"])
    files = {path: path.stat().st_mtime_ns for path in tiny.out.rglob("*.*")}
    assert run(tiny, PROBES["norms"]) == first
    assert {path: path.stat().st_mtime_ns for path in tiny.out.rglob("*.*")} == files
    # Another setting and another probe are other runs; two names of one run are none.
    variants: dict[str, Any] = {n: {"method": "vanilla", "k": None} for n in ("one", "other")}
    run_grid(tiny, variants, Reporter.quiet())
    assert len(list(tiny.out.rglob(RECORD))) == 2 and len(begun) == 2


def test_processes_and_this_one_agree(
    tiny: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the other processes measure every kind
    options = replace(tiny, epochs=1)
    variants = {"it": {"method": "entprop", "capture": "off"}}
    here, there = (
        run_grid(one, variants, Reporter.quiet(), bias.Selections)["it"]
        for one in (options, replace(options, out=tmp_path / "spread", workers=2))
    )
    assert [without_times(one) for one in here] == [without_times(one) for one in there]


def test_a_wrong_setting_is_refused_before_anything_is_trained(tiny: Options) -> None:
    variants: dict[str, Any] = {"a": {"method": "vanilla"}, "b": {"method": "vanilla", "k": 0.5}}
    with pytest.raises(UsageError, match="option 'k'"):
        run_grid(tiny, variants, Reporter.quiet())
    assert not tiny.out.exists()


def test_a_failed_run_is_named_and_the_others_are_done(tiny: Options) -> None:
    bad, good = {"method": "vanilla", "lr": 1e30}, {"method": "mixup"}
    variants: dict[str, Any] = {"bad": bad, "good": good}
    with pytest.raises(RunFailed, match=r"the run in .*vanilla-0-.*: .* NaN"):
        run_grid(tiny, variants, Reporter.quiet())
    (kept,) = tiny.out.rglob(RECORD)
    assert kept.parent.name.startswith("mixup-0")

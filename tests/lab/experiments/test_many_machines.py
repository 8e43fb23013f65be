"""The same runs on two machines that share a folder: each is done once, and none is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from entprop_fast.lab import lease_file, stopping
from entprop_fast.lab.experiments import runner, shared_runs
from entprop_fast.lab.experiments.one_run import Record, Run, failure_of, mark_of, outcome_of
from entprop_fast.lab.files import write_json
from entprop_fast.lab.lease_file import LEASE
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.stopping import Stopped, StopSignals
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.errors import RunFailed, UsageError
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.run_folder import FAILED
from tests.lab.test_lease import Start, be, foreign, start

__all__ = ["start"]

LASTS, BEAT = 3.0, 0.1  # seconds; long enough for a machine that does much else
SCORES = {"sa": 0.9, "ra": 0.5, "hscore": 0.6, "seconds": 1.0, "corruption_source": "none"}


def note(folder: Path, what: str) -> None:
    """Add a line to what all machines did."""
    with (folder.parent / "log").open("a") as log:
        log.write(f"{what} {folder.name} {lease_file.machine().host}\n")


def noted(folder: Path, what: str) -> Counter[str]:
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    return Counter(name for said, name, _ in lines if said == what)


def work(config: Config, reporter: Reporter) -> Record:
    """Work for a while; one that `slow` names for longer, one that `bad` names not to the end."""
    folder = config.folder
    note(folder, "began")
    steps = 400 if (folder.parent / f"slow-{folder.name}").exists() else 10
    for step in range(steps):
        stopping.check()
        write_json(folder / "progress.txt", {"step": step, "by": os.getpid()})
        time.sleep(0.02)
    if (folder.parent / f"bad-{folder.name}").exists():
        raise RunFailed("the loss is NaN")
    record = SCORES | {"by": lease_file.machine().host}
    write_json(folder / "record.json", record)
    note(folder, "ended")
    return record


def record_of(run: Run) -> Record | None:
    try:
        found: Record = json.loads((run.folder / "record.json").read_text())
    except FileNotFoundError:
        return None
    return found


def machine(pipe: Connection, host: str, folder: Path, count: int, *flags: str) -> None:
    """Do the runs as the command does, but for its settings and data."""
    be(host, LASTS, BEAT)
    patched: Any = runner
    shared_runs.POLL = 0.1
    patched._costs = lambda pending, reporter: {"vanilla": 1.0}
    patched._other_images = lambda runs, records, reporter: set()
    runs = [
        Run("vanilla", seed, resolve("digits", seed=seed, out=str(folder / str(seed))), work)
        for seed in range(count)
    ]
    with open(os.devnull, "w") as nowhere, StopSignals().installed():
        said: list[str] = []
        reporter: Any = Reporter(Console(file=nowhere))
        reporter.say = said.append
        try:
            results = runner.run_all(runs, (), reporter, record_of, overwrite="overwrite" in flags)
        except (Stopped, UsageError) as error:
            pipe.send(({}, {}, [*said, str(error)]))
            return
    table = {path.name: record for path, record in results.records.items()}
    failed = {path.name: error for path, error in results.failures.items()}
    pipe.send((table, failed, said))


def wait_for(folder: Path, line: str) -> None:
    until = time.monotonic() + 60
    log = folder / "log"
    while not (log.exists() and line in log.read_text()):
        assert time.monotonic() < until, f"no {line!r}"
        time.sleep(0.01)


def test_each_run_is_done_once_and_both_end_with_the_same(tmp_path: Path, start: Start) -> None:
    pipes = [start(machine, host, tmp_path, 6)[1] for host in ("a", "b")]
    (table, failed, said), other = (pipe.recv() for pipe in pipes)
    assert noted(tmp_path, "began") == noted(tmp_path, "ended") == dict.fromkeys("012345", 1)
    assert table == other[0] and table.keys() == set("012345")
    assert failed == other[1] == {}
    assert {record["by"] for record in table.values()} == {"a", "b"}
    assert any("done by another machine" in line for line in said)
    assert not list(tmp_path.rglob(f"{LEASE}*"))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_machines_run_is_taken_over(
    how: signal.Signals, tmp_path: Path, start: Start
) -> None:
    slow = tmp_path / "slow-0"
    slow.touch()
    first, first_says = start(machine, "first", tmp_path, 2)
    wait_for(tmp_path, "began 0 first")
    _, says = start(machine, "second", tmp_path, 2)
    wait_for(tmp_path, "ended 1 second")
    slow.unlink()
    assert first.pid is not None
    os.kill(first.pid, how)
    table, failed, said = says.recv()
    assert table.keys() == {"0", "1"} and not failed
    assert {record["by"] for record in table.values()} == {"second"}
    text = " | ".join(said)
    assert "1 run is at work elsewhere (1 on first): waiting for the rest" in text
    assert text.count("at work elsewhere") == 1
    assert "vanilla, seed 0: first shows no life any more, taken over" in text
    left = (tmp_path / "0" / "progress.txt").read_bytes()
    if how == signal.SIGSTOP:
        os.kill(first.pid, signal.SIGCONT)
        assert first_says.recv()[0] == table
    assert (tmp_path / "0" / "progress.txt").read_bytes() == left
    assert noted(tmp_path, "ended") == {"0": 1, "1": 1}


def test_a_stopped_machine_frees_its_run_at_once(tmp_path: Path, start: Start) -> None:
    slow = tmp_path / "slow-0"
    slow.touch()
    first, first_says = start(machine, "first", tmp_path, 1)
    wait_for(tmp_path, "began 0 first")
    slow.unlink()
    _, says = start(machine, "second", tmp_path, 1)
    time.sleep(0.3)
    began = time.monotonic()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGTERM)
    assert "SIGTERM" in first_says.recv()[2][-1]
    wait_for(tmp_path, "began 0 second")
    assert time.monotonic() - began < LASTS
    table, _, said = says.recv()
    assert table["0"]["by"] == "second" and "no life" not in " ".join(said)


def test_a_failed_run_is_tried_once_by_all_and_again_by_the_next_command(
    tmp_path: Path, start: Start
) -> None:
    bad = tmp_path / "bad-1"
    bad.touch()
    pipes = [start(machine, host, tmp_path, 4)[1] for host in ("a", "b")]
    ended = [pipe.recv() for pipe in pipes]
    for table, failed, _ in ended:
        assert table.keys() == {"0", "2", "3"}
        assert failed["1"].startswith("the loss is NaN")
    here, there = sorted(failed["1"] for _, failed, _ in ended)
    assert there in [f"{here} (on {host})" for host in ("a", "b")]
    assert noted(tmp_path, "began")["1"] == 1
    assert failure_of(tmp_path / "1") is not None
    bad.unlink()
    table, failed, _ = start(machine, "a", tmp_path, 4)[1].recv()
    assert table.keys() == set("0123") and not failed
    assert not (tmp_path / "1" / FAILED).exists()


def test_a_run_that_ended_elsewhere_since_it_was_looked_at_is_not_begun(tmp_path: Path) -> None:
    run = Run("vanilla", 0, resolve("digits", out=str(tmp_path / "0")), work)
    before = mark_of(run.folder)
    run.folder.mkdir()
    write_json(run.folder / "record.json", SCORES)
    assert outcome_of(run, before, Reporter.quiet()).held == "another machine"
    assert not (tmp_path / "log").exists()
    assert outcome_of(run, mark_of(run.folder), Reporter.quiet()).record is not None


def test_a_machine_that_is_lost_is_no_obstacle_to_overwrite(tmp_path: Path, start: Start) -> None:
    (tmp_path / "0").mkdir()
    foreign(tmp_path / "0")
    (tmp_path / "0" / "summary.json").write_text("of an older run")
    table, _, said = start(machine, "a", tmp_path, 1, "overwrite")[1].recv()
    assert table["0"]["by"] == "a" and any("held by process" in line for line in said)
    assert not (tmp_path / "0" / "summary.json").exists()


def test_overwrite_is_for_the_first_machine(tmp_path: Path, start: Start) -> None:
    (tmp_path / "slow-0").touch()
    start(machine, "first", tmp_path, 1)
    wait_for(tmp_path, "began 0 first")
    _, _, said = start(machine, "second", tmp_path, 1, "overwrite")[1].recv()
    assert "first is at work at one" in said[-1] and "to the first alone" in said[-1]

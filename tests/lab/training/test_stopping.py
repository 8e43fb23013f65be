"""A signal is noted wherever it comes, answered where nothing is lost, and never swallowed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab import stopping
from entprop_fast.lab.checkpoint import read
from entprop_fast.lab.stopping import SIGNALS, StopSignals
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.trainer import Trainer
from tests.lab.conftest import Call

pytestmark = pytest.mark.usefixtures("without_pictures")


class Dying:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("moment", "batch"), [("_train_batch", 1), ("_row", 2)])
def test_a_signal_where_python_drops_exceptions_stops_the_run(
    moment: str, batch: int, run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FOUND W13: an exception out of the handler was lost there, and the command returned 0."""
    original = getattr(Trainer, moment)

    def signalled(self: Trainer, *batch: Any) -> Any:
        Dying()
        return original(self, *batch)

    monkeypatch.setattr(Trainer, moment, signalled)
    run(tmp_path, code=143)
    assert read(tmp_path / "checkpoint.pt")["batch"] == batch


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_handler_only_notes(signum: signal.Signals) -> None:
    """FOUND W13, C12: nothing is raised before somebody asks, and then as often as it is asked."""
    before = [signal.getsignal(one) for one in SIGNALS]
    with StopSignals().installed() as signals:
        os.kill(os.getpid(), signum)
        assert signals.pending == signum
        for _ in range(2):
            with pytest.raises(stopping.Stopped) as stopped:
                stopping.check()
        assert stopped.value.signum == signum
    stopping.check()  # nobody is watched any more
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_a_second_ctrl_c_ends_at_once() -> None:
    """FOUND W13: the first one leaves the next to the system, which waits for no Python."""
    with StopSignals().installed() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.pending == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_was_ignored_stays_so(signum: signal.Signals) -> None:
    """FOUND C12: nohup, and ``command &`` in a script, ask for that."""
    before = signal.signal(signum, signal.SIG_IGN)
    try:
        with StopSignals().installed() as signals:
            os.kill(os.getpid(), signum)
            assert signals.pending is None
        assert signal.getsignal(signum) is signal.SIG_IGN
    finally:
        signal.signal(signum, before)


def test_from_python_a_run_can_be_stopped_without_a_signal(tmp_path: Path) -> None:
    out, signals = tmp_path / "run", StopSignals()
    config = resolve("digits", train_size=40, batch_size=20, epochs=1, out=str(out))
    before = [signal.getsignal(one) for one in SIGNALS]

    def stop(trainer: Trainer) -> None:
        assert [signal.getsignal(one) for one in SIGNALS] == before  # left alone
        signals.pending = signal.SIGTERM

    with stopping.watched(signals), pytest.raises(stopping.Stopped) as stopped:
        train_run(config, watch=stop)
    assert stopped.value.saved is None and not out.exists()
    stopping.check()  # the next one is not

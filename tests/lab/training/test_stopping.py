"""A signal is noted wherever it comes, answered where nothing is lost, and never swallowed."""

from __future__ import annotations

import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab import stopping
from entprop_fast.lab.checkpoint import read
from entprop_fast.lab.cli import train
from entprop_fast.lab.stopping import SIGNALS, StopSignals
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.trainer import Trainer
from tests.lab.conftest import Args

pytestmark = pytest.mark.usefixtures("without_pictures")


class Dying:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def in_a_weakref_callback() -> None:
    dying = type("Plain", (), {})()
    kept = weakref.ref(dying, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del dying
    assert kept() is None


def in_a_finaliser() -> None:
    dying = Dying()
    del dying


@pytest.mark.parametrize("where", [in_a_weakref_callback, in_a_finaliser])
@pytest.mark.parametrize("moment", ["_train_batch", "_row"])
def test_a_signal_where_python_drops_exceptions_stops_the_run(
    where: Callable[[], None], moment: str, tiny: Args, tmp_path: Path
) -> None:
    """FOUND W13: an exception out of the handler was lost there, and the command returned 0."""
    out, original = tmp_path / "run", getattr(Trainer, moment)

    def signalled(self: Trainer, *batch: Any) -> Any:
        where()
        return original(self, *batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, moment, signalled)
        assert train.main(tiny(out)) == 143
    assert read(out / "checkpoint.pt")["batch"] == {"_train_batch": 1, "_row": 2}[moment]


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


def test_from_python_signals_are_left_alone(tmp_path: Path) -> None:
    config = resolve("digits", train_size=40, batch_size=20, epochs=1, out=str(tmp_path / "run"))
    seen: list[Any] = []
    before = [signal.getsignal(one) for one in SIGNALS]
    train_run(config, watch=lambda _: seen.extend(signal.getsignal(one) for one in SIGNALS))
    assert seen == before


def test_from_python_a_run_can_be_stopped_without_a_signal(tmp_path: Path) -> None:
    out, signals = tmp_path / "run", StopSignals()
    config = resolve("digits", train_size=40, batch_size=20, epochs=1, out=str(out))

    def stop(trainer: Trainer) -> None:
        signals.pending = signal.SIGTERM

    with stopping.watched(signals), pytest.raises(stopping.Stopped) as stopped:
        train_run(config, watch=stop)
    assert stopped.value.saved is None and not out.exists()
    stopping.check()  # the next one is not

"""Run a command: its errors in one line, its exit codes, the signals that stop it."""

from __future__ import annotations

import contextlib
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

from entprop_fast.lab.cli.called import remember_flags, words_of
from entprop_fast.lab.cli.ending import EXIT_FAILED, Ending, ending_of
from entprop_fast.lab.cli.in_job import launched, speaking_once, taking_part
from entprop_fast.lab.cli.output import lasting, missed
from entprop_fast.lab.stopping import StopSignals
from entprop_fast.lab.training.errors import (
    RunFailed,
    Stopped,
    UsageError,
    one_line,
)


def run_command(
    command: Callable[[], None],
    *,
    again: Callable[[bool], str] | None = None,
    together: bool = False,
) -> int:
    """Run a command and return its exit code.

    0, also where a time limit ended it; 2 after bad usage or bad input; 128 + the signal's number
    after one of `entprop_fast.lab.stopping.SIGNALS`: 130 after SIGINT, 143 after SIGTERM, 129 after
    SIGHUP, 138 after SIGUSR1 on Linux; 1 otherwise. A user's error or a failed run is one line on
    stderr; a fault of ours keeps its traceback.

    Args:
        command: asks `entprop_fast.lab.stopping.check` whether a signal came.
        again: the command line that goes on after a stop, given whether anything was saved.
        together: the command takes part in a job of several processes, such as torchrun starts.
    """
    remember_flags({})
    with speaking_once(), lasting() as output:
        ending = _ended(command, again, together=together)
        ending.say()
        output.flush()
        if ending.code == 0 and (error := missed(output.error)):
            print(f"failed: stdout cannot be written: {one_line(error)}", file=sys.stderr)
            return EXIT_FAILED
    return ending.code


def _ended(
    command: Callable[[], None], again: Callable[[bool], str] | None, *, together: bool
) -> Ending:
    signals = StopSignals()
    try:
        with taking_part(together, signals) as processes:
            with signals.installed(), _warnings_in_one_line():
                ending = _ending(command, again, signals)
                return processes.agree(ending)
    except (UsageError, RunFailed, KeyboardInterrupt) as error:  # the job did not begin
        return ending_of(error)


def _ending(
    command: Callable[[], None], again: Callable[[bool], str] | None, signals: StopSignals
) -> Ending:
    try:
        command()
    except SystemExit as stop:  # after --help
        return Ending(0, fault=stop)
    except BaseException as error:
        return ending_of(error, again)
    if signals.pending is None:
        return Ending(0)
    # A loop of the shell's is to end as well.
    name = Stopped(signals.pending)
    return Ending(128 + signals.pending, f"stopped by {name}: all was done")


def command_again(prog: str, args: Sequence[str] | None, *more: str) -> Callable[[bool], str]:
    """Return what names, for `run_command`, the command line to type after a stop.

    Args:
        prog: the module; it is named as it was called.
        args: of this time, None for the command line's.
        more: flags that go on where something was saved; what was given with --overwrite was
            replaced by then.
    """
    given = list(sys.argv[1:] if args is None else args)
    called = launched(prog) or words_of(prog)

    def words(saved: bool) -> str:
        if not saved:
            return f"again: {shlex.join([*called, *given])}"
        kept = [one for one in given if one != "--overwrite" and one not in more]
        return f"to go on: {shlex.join([*called, *kept, *more])}"

    return words


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Leave out the place in the source: who types a command did not write it."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before

"""Say how a command ends: its exit code, and the one line about it."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from entprop_fast.lab.cli.called import with_flags
from entprop_fast.lab.stopping import OutOfTime
from entprop_fast.lab.training.errors import (
    RunFailed,
    Stopped,
    UsageError,
    machine_failed,
)

EXIT_FAILED = 1
EXIT_USAGE = 2


@dataclass(frozen=True)
class Ending:
    """Hold how a command ended.

    Attributes:
        code: its exit code.
        line: what is said of it; empty: nothing.
        reason: of a failure, without the words before it.
        on_time: it ended as was asked for, which goes to stdout.
        fault: of ours, which keeps its traceback.
    """

    code: int
    line: str = ""
    reason: str = ""
    on_time: bool = False
    fault: BaseException | None = None

    @classmethod
    def of_fault(cls, error: BaseException) -> Ending:
        """Return the ending by an error that nobody foresaw."""
        return cls(EXIT_FAILED, fault=error)

    @property
    def failed(self) -> bool:
        """Whether the command could not do what was asked, or go on with it later."""
        return self.code in (EXIT_FAILED, EXIT_USAGE)

    def say(self) -> None:
        """Print the line, or raise the fault."""
        if self.fault is not None:
            raise self.fault
        if self.line:
            print(self.line, file=sys.stdout if self.on_time else sys.stderr)

    def show_fault(self) -> None:
        """Print the traceback of a fault."""
        if self.fault is not None:
            traceback.print_exception(self.fault)


def ending_of(error: BaseException, again: Callable[[bool], str] | None = None) -> Ending:
    """Return how a command ends that raised this."""
    if isinstance(error, UsageError):
        return _failure("error", with_flags(str(error)), EXIT_USAGE)
    if isinstance(error, RunFailed):
        return _failure("failed", str(error), EXIT_FAILED)
    if isinstance(error, OSError | RuntimeError | MemoryError):  # the machine's, not ours
        reason = machine_failed(error)
        return Ending.of_fault(error) if reason is None else _failure("failed", reason, EXIT_FAILED)
    if isinstance(error, Stopped):
        text = f"stopped by {error}: {error.saved or 'nothing was begun that could be kept'}"
        if again is not None:
            text += f"; {again(error.saved is not None)}"
        on_time = isinstance(error, OutOfTime)  # as was asked for
        return Ending(0 if on_time else 128 + error.signum, text, on_time=on_time)
    if isinstance(error, KeyboardInterrupt):  # not the signal, which `StopSignals` has
        text = "stopped by KeyboardInterrupt, which code raised"
        return Ending(128 + signal.SIGINT, text)
    return Ending.of_fault(error)


def _failure(kind: str, reason: str, code: int) -> Ending:
    return Ending(code, f"{kind}: {reason}", reason)

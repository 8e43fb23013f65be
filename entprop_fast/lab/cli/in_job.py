"""Run a command in all processes of a job as if it were one: one output, one ending."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

from torch import distributed as dist

from entprop_fast.lab import job
from entprop_fast.lab.cli.ending import Ending
from entprop_fast.lab.job.environment import Place, place_of
from entprop_fast.lab.job.start import meeting
from entprop_fast.lab.job.watchdog import Watchdog
from entprop_fast.lab.stopping import StopSignals
from entprop_fast.lab.training.errors import RunFailed, UsageError, one_line

# What errors of gloo hold when a process that it speaks with has gone (NCCL's are of classes), and
# what the agreement of a step says of another process's failure.
_GONE = (
    "gloo/transport",
    "Connection closed by peer",
    "Connection reset by peer",
    "no process takes",
)
_Lost = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)


@contextlib.contextmanager
def speaking_once() -> Iterator[None]:
    """Print nothing within, unless this is the process of a job that speaks for all."""
    place = _known_place()
    if place is None or place.rank == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield


def launched(prog: str) -> list[str]:
    """Return the words that start a command in as many processes as now; none for a single one.

    Args:
        prog: its module.
    """
    environ = os.environ
    if _known_place() is None:
        return []
    if "TORCHELASTIC_RUN_ID" in environ:
        machines = environ.get("GROUP_WORLD_SIZE", "1")
        nodes = [] if machines == "1" else ["--nnodes", machines]
        local = environ.get("LOCAL_WORLD_SIZE", "1")
        return ["torchrun", *nodes, "--nproc-per-node", local, "-m", prog]
    return ["srun", "python", "-m", prog] if "SLURM_STEP_NODELIST" in environ else []


class Alone:
    """Be a command's only process."""

    def agree(self, ending: Ending) -> Ending:
        """Return how the command ends."""
        return ending


class Member(Alone):
    """Be one of the processes that end together."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def agree(self, ending: Ending) -> Ending:
        """Wait until all have ended alike, or end this process because one failed."""
        here = job.current()
        if ending.failed:
            text = ending.reason or one_line(ending.fault or RuntimeError())
            if _by_another(text, ending.fault):
                self._watchdog.lost()
            line = self._watchdog.failing(text, ending.code)
            ending.show_fault()
            _end_now(line, ending.code)
        try:
            code = int(here.largest(ending.code))
        except RuntimeError as error:  # another one ended otherwise
            return self.agree(Ending.of_fault(error))
        self._watchdog.close()
        return ending if here.is_main else Ending(code)


@contextlib.contextmanager
def taking_part(together: bool, signals: StopSignals) -> Iterator[Alone]:
    """Be one of the processes of a job within, where torchrun or srun started several.

    Args:
        together: the command's work is shared out among them.
        signals: what comes to one is noted in all.

    Raises:
        UsageError: its work cannot be, or the environment is not valid.
        RunFailed: the processes do not meet.
    """
    place = _place(together)
    if place is None:
        yield Alone()
        return
    with contextlib.ExitStack() as stack:
        try:
            here, board = stack.enter_context(meeting(place))
        except ConnectionError as error:
            raise RunFailed(one_line(error)) from error
        watchdog = Watchdog(here, board, signals)
        watchdog.start()
        yield Member(watchdog)


def _known_place() -> Place | None:
    try:
        return place_of(os.environ)
    except ValueError:  # said by `taking_part`
        return None


def _place(together: bool) -> Place | None:
    if not together:
        _check_single_process()
        return None
    try:
        return place_of(os.environ)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _by_another(text: str, fault: BaseException | None) -> bool:
    """Return whether an exchange failed because another process has failed or gone."""
    return isinstance(fault, _Lost) or any(words in text for words in _GONE)


def _end_now(line: str, code: int) -> None:
    """Say why and end: nobody waits for the exchanges that others may hang in."""
    print(line, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _check_single_process() -> None:
    """Refuse to be one of several processes that torchrun started with the same arguments.

    Raises:
        UsageError: it is one; all of them would write to the same folder.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size.isdecimal() and int(size) > 1:
        raise UsageError(
            f"WORLD_SIZE={size}: this command is one process, and torchrun started {size}: start "
            "it without torchrun (train, evaluate and corrupt share their work out among several; "
            "compare and study use several GPUs by themselves)"
        )

"""Run a command in all processes of a job as if it were one: one output, one ending."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from entprop_fast.lab.job.environment import Place, place_of
from entprop_fast.lab.job.start import meeting
from entprop_fast.lab.training.errors import RunFailed, UsageError, one_line


@contextlib.contextmanager
def speaking_once() -> Iterator[None]:
    """Print nothing within, unless this is the process of a job that speaks for all."""
    place = _place(strict=False)
    if place is None or place.rank == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@contextlib.contextmanager
def taking_part(together: bool) -> Iterator[None]:
    """Be one of the processes of a job within, where torchrun or srun started several.

    Args:
        together: the command's work is shared out among them.

    Raises:
        UsageError: its work cannot be, or the environment is not valid.
        RunFailed: the processes do not meet.
    """
    if not together:
        _check_single_process()
        yield
        return
    place = _place()
    if place is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(meeting(place))
        except ConnectionError as error:
            raise RunFailed(one_line(error)) from error
        yield


def _place(*, strict: bool = True) -> Place | None:
    try:
        return place_of(os.environ)
    except ValueError as error:
        if not strict:
            return None
        raise UsageError(str(error)) from error


def _check_single_process() -> None:
    """Refuse to be one of several processes that torchrun started with the same arguments.

    Raises:
        UsageError: it is one; all of them would write to the same folder.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size.isdecimal() and int(size) > 1:
        raise UsageError(
            f"WORLD_SIZE={size}: this command is one process, and torchrun starts {size}, which "
            "would all do the same work in the same folder; start it without torchrun (compare "
            "trains as many runs at a time as there are GPUs, and train, evaluate and corrupt "
            "are the commands that share their work out among several processes)"
        )

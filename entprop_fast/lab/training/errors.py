"""Define how a command ends early; `entprop_fast.lab.cli.command_line` has the exit codes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch

from entprop_fast.lab.data.readers import ReadersFailed
from entprop_fast.lab.report.text import plain
from entprop_fast.lab.stopping import Stopped
from entprop_fast.lab.training.own_names import other_images

__all__ = [
    "FolderInUse",
    "NotFinite",
    "RunFailed",
    "Stopped",
    "TakenOver",
    "UsageError",
    "bad_input",
    "failing",
    "fitting",
    "machine_failed",
    "one_line",
]

# How torch begins when it finds no memory on the CPU; on CUDA there is a class for it.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "Storage size calculation overflowed")
_LONGEST = 160  # characters of torch's reason


class _OneLine(Exception):
    """Keep the message on one line, whatever is quoted in it."""

    def __str__(self) -> str:
        return _as_one_line(super().__str__())


class UsageError(_OneLine, ValueError):
    """Name bad usage or bad input in one line, and say what is valid."""


class RunFailed(_OneLine, RuntimeError):
    """Say why a run cannot go on, although its settings and data were accepted."""


class FolderInUse(UsageError):
    """Name a folder that another process writes to.

    Attributes:
        host: the process's machine.
    """

    def __init__(self, message: str, host: str) -> None:
        super().__init__(message)
        self.host = host


class TakenOver(RunFailed):
    """Say that another machine goes on with the run: this process has shown no life for too long.

    Attributes:
        host: the machine.
    """

    def __init__(self, message: str, host: str) -> None:
        super().__init__(message)
        self.host = host


class NotFinite(RunFailed):
    """Name a number that became NaN or infinite.

    Attributes:
        step: the last one, from 1, that can have led there.
    """

    def __init__(self, reason: str, step: int) -> None:
        super().__init__(reason)
        self.step = step


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """Turn what settings, data or missing libraries make fail within into a `UsageError`.

    Raises:
        UsageError: see above.
        RunFailed: a process that reads images was killed, or has not what it needs.
    """
    try:
        yield
    except ReadersFailed as error:
        raise RunFailed(one_line(error)) from error
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise UsageError(one_line(error)) from error


@contextlib.contextmanager
def failing(way_on: str) -> Iterator[None]:
    """Turn what the disk makes fail within into a `RunFailed` that ends with the way to go on."""
    try:
        yield
    except OSError as error:
        raise RunFailed(f"{one_line(error)}; {way_on}") from error


@contextlib.contextmanager
def fitting(arch: str, shape: Sequence[int], dataset: str) -> Iterator[None]:
    """Turn what torch refuses in a run's first step into settings that do not fit.

    Args:
        arch: of the network.
        shape: of its images.
        dataset: whose they are.

    Raises:
        RunFailed: the machine lacks memory.
        ValueError: anything else that the network or its data made fail.
    """
    try:
        yield
    except RunFailed:
        raise
    except ValueError as error:  # the method refuses the network or the images
        if not (hint := other_images(arch, dataset)):
            raise
        raise ValueError(f"{one_line(error)}; the images are {dataset!r}: {hint}") from error
    except (RuntimeError, MemoryError, AssertionError, IndexError) as error:
        if (reason := machine_failed(error)) is not None:
            raise RunFailed(reason) from error
        hint = other_images(arch, dataset)
        raise ValueError(
            f"arch {arch!r} cannot be trained on images {list(shape)} of {dataset!r} with these "
            f"settings: {one_line(error)}{f'; {hint}' if hint else ''}"
        ) from error


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks, or what else moves a terminal's cursor."""
    return _as_one_line(str(error)) or type(error).__name__


def machine_failed(error: BaseException) -> str | None:
    """Name what the machine lacked: memory, room on a disk; None for another error."""
    if isinstance(error, OSError):
        return one_line(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    ):
        first = one_line(RuntimeError(*str(error).splitlines()[:1]))
        return f"out of memory, a smaller --batch-size takes less ({first[:_LONGEST]})"
    return None


def _as_one_line(text: str) -> str:
    return plain(" ".join(text.split()))

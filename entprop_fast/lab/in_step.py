"""Share work out among the processes of a job: what one of them meets, all of them raise.

A process that is alone does all of the work, and raises what it meets.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn, TypeVar

from entprop_fast.lab import stopping
from entprop_fast.lab.job import current

T = TypeVar("T")

EVERY = 1.0  # seconds of work after which the processes hear of each other

_END = object()
_TOLD = "told_to_all_processes"  # an attribute of errors


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Do something in all processes; an error or a stop within, in any of them, ends all."""
    error = None
    try:
        with stopping.agreed():
            yield
    except BaseException as caught:  # also a stop
        if _was_told(caught):
            raise
        error = caught
    _meet(error)


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Do in rank 0 what makes files, then in the others, which find them; errors as `together`."""
    if current().is_main:
        with together():
            yield
        _meet(None)  # the others' turn
    else:
        _meet(None)  # rank 0's
        with together():
            yield


def work_through(
    share: Iterable[T],
    work: Callable[[T], float],
    heard: Callable[[float, bool], None] = lambda done, ends: None,
) -> None:
    """Work through this process's share while the others do theirs; hear of them every second.

    Each takes its time for its share, which may be empty. Signals and the clock are looked at after
    every thing. What one process raises, all of them raise within a second and one thing's time.

    Args:
        share: made as it is worked through.
        work: does one thing, and returns how much that was.
        heard: called in all processes at the same time, in a job of one after each thing: with how
            much all of them did since, and whether an error follows.
    """
    job, left = current(), iter(share)
    things, others = True, 1.0  # left here, and processes that have some
    while others:
        done, error, began = 0.0, None, time.monotonic()
        try:
            while things:
                with stopping.agreed():
                    thing: Any = next(left, _END)
                    if things := thing is not _END:
                        done += work(thing)
                        stopping.check()
                if job.world == 1 or time.monotonic() - began >= EVERY:
                    break
        except BaseException as caught:  # also a stop
            error = caught
        done, failed, others = job.sums([done, error is not None, things])
        if done or failed:
            heard(done, bool(failed))
        if failed:
            _raise_first(error)


def _meet(error: BaseException | None) -> None:
    # As many numbers as above: a process that fails may be elsewhere.
    _, failed, _ = current().sums([0, error is not None, False])
    if failed:
        _raise_first(error)


def _raise_first(error: BaseException | None) -> NoReturn:
    """Raise in all processes the error of the first that has one."""
    job = current()
    told = job.gather(None if error is None else _Told.of(error, job.rank))
    first = next(one for one in told if one is not None)
    if error is None or first.rank != job.rank:
        error = first.again()
    vars(error)[_TOLD] = True
    raise error


def _was_told(error: BaseException | None) -> bool:
    """Return whether all processes raise this error already, or what led to it."""
    while error is not None:
        if _TOLD in vars(error):
            return True
        error = error.__cause__
    return False


class _Told(NamedTuple):
    """An error on its way to another process, without its traceback."""

    rank: int
    kind: type[BaseException]
    text: str
    attributes: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException, rank: int) -> _Told:
        kinds = (kind for kind in type(error).__mro__ if _is_importable(kind))
        plain = {k: v for k, v in vars(error).items() if isinstance(v, str | int | float | None)}
        return cls(rank, next(kinds), str(error) or type(error).__name__, plain)

    def again(self) -> BaseException:
        """Make it anew, of the same class and with the rank in its words."""
        stop = issubclass(self.kind, stopping.Stopped)
        text = self.text if stop else f"rank {self.rank}: {self.text}"
        error = self.kind.__new__(self.kind)
        error.args = (text,)
        vars(error).update(self.attributes)
        return error if text in str(error) else RuntimeError(text)


def _is_importable(kind: type) -> bool:
    return getattr(sys.modules[kind.__module__], kind.__qualname__, None) is kind

"""Watch the processes of a job, so that none waits for ever for one that has gone or hangs.

A thread of each process writes its news to the job's store. The one of rank 0, or of the lowest
rank that is left, reads them all and says in one line whose fault it is that the job ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import sys
import threading
import time
from typing import Protocol

from torch.distributed import Store  # type: ignore[attr-defined]

from entprop_fast.lab.job.members import Job
from entprop_fast.lab.job.phases import NOW, WAITING
from entprop_fast.lab.job.verdicts import LOST, SILENT, News, Verdict, judge, name

_BEAT = 0.5  # seconds
_MANY = 64  # processes, beyond which there are fewer beats
_DEAF = 10.0  # seconds after a signal in which a process looks whether to stop
_SLOW = 3.0  # times the longest time between two such looks, where that is more
_HEARD = 4.0  # beats in which all living processes have read a verdict
_EXCHANGES = (
    os.path.join("torch", "distributed", ""),
    os.path.join("entprop_fast", "parallel", ""),
)
_PATIENCE = 15.0  # seconds to wait for a verdict


class Signals(Protocol):
    """Hold the number of a signal that came, or None."""

    pending: int | None


class Watchdog:
    """Tell the others how this process is, and end it when the job has to end.

    Args:
        job: whose processes these are.
        board: what all can write to and read.
        signals: what came in this process; one that came in another one is noted there as well.
    """

    def __init__(self, job: Job, board: Store, signals: Signals) -> None:
        self._job, self._board, self._signals = job, board, signals
        self._host = socket.gethostname()
        self._main = threading.get_ident()
        self._failure = News(self._host)  # what is told of it
        self._signalled: float | None = None  # when a signal was first seen
        self._failed: float | None = None  # when a failure was first seen
        self._beats = 0
        self._seen: list[tuple[int, float]] = []  # of each rank: its last beat, and when
        self._closing = threading.Event()
        self._judging = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin; every process of the job does, and all are there before any goes on."""
        self._tell()
        if self._job.is_main:
            self._board.set("verdict", "")
            self._board.set("stop", "")
        self._job.wait()
        self._thread.start()

    def close(self) -> None:
        """Tell the others that this process has done all there was."""
        self._closing.set()
        self._thread.join()
        self._failure = dataclasses.replace(self._failure, over=True)
        with contextlib.suppress(RuntimeError):  # rank 0 kept the store, and has ended
            self._tell()

    def lost(self) -> None:
        """Tell that an exchange failed, and wait until it is known who has gone."""
        self._failure = dataclasses.replace(self._failure, lost=True)
        self._closing.wait(_PATIENCE)

    def failing(self, text: str, code: int) -> str:
        """Tell the others why this process ends, and return its line where it is to say it itself.

        Other ranks than 0 leave that to rank 0, and are ended by what it says.
        """
        self._failure = dataclasses.replace(self._failure, failure=text, code=code)
        kind = "error" if code == 2 else "failed"
        own = f"{kind}: {name(self._job.rank, self._failure)}: {text}"
        try:
            if not self._job.is_main:
                self._tell()
                time.sleep(_PATIENCE)
                return own
            time.sleep(2 * self._beat)
            alike = [one for one in self._read_all()[1:] if one.failure]
            self._judging.acquire()  # for good: one verdict is enough
            self._closing.set()
            self._publish(Verdict(text, code))
        except RuntimeError:  # the store has gone as well
            return own
        return f"{kind}: {text}" if alike or code == 2 else own

    @property
    def _beat(self) -> float:
        return _BEAT if self._job.world <= _MANY else 4 * _BEAT

    def _watch(self) -> None:
        while not self._closing.wait(self._beat):
            try:
                self._turn()
            except RuntimeError as error:  # of the store
                if not self._closing.is_set():
                    self._without_store(error)

    def _turn(self) -> None:
        self._tell()
        said, stop, first = (
            bytes(one).decode() for one in self._board.multi_get(["verdict", "stop", _key(0)])
        )
        if said and not self._closing.is_set():  # else this process speaks, and then ends
            self._end(Verdict(**json.loads(said)).code)
        if stop and self._signals.pending is None:
            self._signals.pending = int(stop)
        if self._job.is_main or self._leads(News(**json.loads(first))):
            self._judge()

    def _leads(self, first: News) -> bool:
        """Return whether this is the lowest rank that is left; mostly rank 0 is there."""
        if not self._seen or self._seen[0][0] != first.beat:
            self._seen = [(first.beat, time.monotonic())]
            return False
        patience = LOST if self._failure.lost else SILENT
        if first.over or time.monotonic() - self._seen[0][1] < patience:
            return False
        lower = self._read_all()[: self._job.rank]
        time.sleep(2 * self._beat)
        later = self._read_all()[: self._job.rank]
        return all(one.beat == now.beat for one, now in zip(lower, later, strict=True))

    def _judge(self) -> None:
        news, now = self._read_all(), time.monotonic()
        if len(self._seen) != len(news):
            since = self._seen[0][1] if self._seen else now
            self._seen = [(one.beat, since if rank == 0 else now) for rank, one in enumerate(news)]
        for rank, one in enumerate(news):
            if one.beat != self._seen[rank][0]:
                self._seen[rank] = one.beat, now
        if asked := next((one.signum for one in news if one.signum), 0):
            self._board.set("stop", str(asked))
        if self._failed is None and any(one.failure for one in news):
            self._failed = now
        failed_for = 0.0 if self._failed is None else now - self._failed
        silent = [now - when for _, when in self._seen]
        verdict = judge(news, silent, failed_for, self._job.rank)
        if verdict is not None and self._judging.acquire(blocking=False):
            _say(verdict.text)
            self._publish(verdict)
            self._end(verdict.code)

    def _publish(self, verdict: Verdict) -> None:
        """Let the others read it; the store may end with this process."""
        self._board.set("verdict", str(verdict))
        time.sleep(_HEARD * self._beat)

    def _without_store(self, error: RuntimeError) -> None:
        """End: the process that kept the store has gone."""
        rank, reason = self._job.rank, (str(error).splitlines() or [""])[0]
        if rank <= 1:  # rank 0 keeps it, or torchrun does
            who = "torchrun, or whoever keeps the store," if rank == 0 else "rank 0"
            _say(f"failed: {who} is gone, killed perhaps: {reason[:160]}")
        self._end(1)

    def _end(self, code: int) -> None:
        """End the process, whatever its main thread waits for."""
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)

    def _tell(self) -> None:
        self._beats += 1
        self._board.set(_key(self._job.rank), str(self._news()))

    def _news(self) -> News:
        now, pending = time.monotonic(), self._signals.pending
        if pending is not None and self._signalled is None:
            self._signalled = now
        deaf = False
        if self._signalled is not None:
            since = max(self._signalled, NOW.looked or 0.0)
            deaf = now - since > max(_DEAF, _SLOW * NOW.longest)
        still = now - NOW.began
        looks = min(_DEAF, NOW.limit / 2) if NOW.limit else _DEAF
        place, waiting = _place(self._main) if still > looks or deaf else ("", False)
        return dataclasses.replace(
            self._failure,
            phase=NOW.name,
            still=still,
            place=place,
            waiting=waiting or NOW.name == WAITING,
            limit=NOW.limit,
            signum=pending or 0,
            deaf=deaf,
            beat=self._beats,
        )

    def _read_all(self) -> list[News]:
        keys = [_key(rank) for rank in range(self._job.world)]
        return [News(**json.loads(bytes(one))) for one in self._board.multi_get(keys)]


def _key(rank: int) -> str:
    return f"news/{rank}"


def _place(thread: int) -> tuple[str, bool]:
    """Return the line of code that a thread is at, and whether it waits there for other ranks."""
    frame = sys._current_frames().get(thread)
    waiting, place = False, ""
    while frame is not None:
        path = frame.f_code.co_filename
        waiting |= any(one in path for one in _EXCHANGES)
        if "entprop_fast" in path and not place:
            place = f"{os.path.basename(path)}:{frame.f_lineno}"
        frame = frame.f_back
    return place, waiting


def _say(line: str) -> None:
    """Print a line on stderr, past what the main thread may hold."""
    os.write(2, f"{line}\n".encode(errors="replace"))

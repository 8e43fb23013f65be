"""Hold a folder for this process, and notice when another has taken it over.

A process that was stopped for longer than a lease lasts (SIGSTOP, a machine that slept, a network
that was away) wakes up in a folder that is another's. All files of the laboratory are written by
`entprop_fast.lab.files`, which asks here first.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from pathlib import Path

from entprop_fast.lab import files, lease_file, stopping
from entprop_fast.lab.lease_file import LEASE, Seen

BEAT = 10.0  # seconds between two signs of life

_TRIES = 40
_PAUSE = 0.025  # seconds; what is away for all tries is gone
_NOBODY = Seen(b"", "an unknown machine", 0, "", False, False)
# Of CLOCK_MONOTONIC's seconds a machine that sleeps has none.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Held(Exception):
    """Another process holds the folder."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(f"process {seen.pid} on {seen.host}" if seen.pid else seen.host)
        self.seen = seen


class Lost(RuntimeError):
    """The folder that this process held is another's, or was removed.

    Attributes:
        host: whose it is; None: nobody's.
    """

    def __init__(self, folder: Path, host: str | None) -> None:
        super().__init__(
            f"taken over by {host}: this process showed no life for too long, and has written "
            f"nothing more to {folder}"
            if host
            else f"{folder}, or the file {LEASE} in it, by which others see that this process "
            "writes there, was removed: nothing more is written"
        )
        self.host = host


class Lease:
    """Be the process that may write to a folder; `take` makes it.

    Raises:
        FileExistsError: somebody is.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.token, self.pid = folder, uuid.uuid4().hex, os.getpid()
        self.holders = 1
        self._lost: Lost | None = None
        self._beats, self._guard = 0, threading.Lock()
        self._ended = threading.Event()
        self._file = files.create_new(folder / LEASE)
        try:
            self._beat()  # a disk without room says so before the work
        except OSError:
            (folder / LEASE).unlink(missing_ok=True)
            self._file.close()
            raise
        threading.Thread(target=self._live, name=f"lease of {folder}", daemon=True).start()

    def check(self) -> None:
        """Make sure that the folder is this process's still.

        Raises:
            Lost: it is not.
        """
        if self.pid != os.getpid():  # a process that was forked to read images
            return
        if self._lost is None and time.clock_gettime(_CLOCK) - self._last > 2 * BEAT:
            with contextlib.suppress(OSError):
                self._beat()
        if self._lost is None and not self._named():
            self._lose()
        for _ in range(_TRIES):  # a moment without a lease: somebody took ours, and puts it back
            if self._lost is not None:
                raise self._lost
            seen = lease_file.look(self.folder)
            if seen is not None:
                if seen.token == self.token:
                    return
                break
            time.sleep(_PAUSE)
        raise self._lose()

    def release(self) -> None:
        """Let others in, once all who took it have let go."""
        self.holders -= 1
        if self.holders:
            return
        with self._guard:
            self._ended.set()
            with contextlib.suppress(OSError):
                seen = lease_file.look(self.folder)
                if seen is not None and seen.token == self.token:
                    lease_file.remove(self.folder, seen.content)
            with contextlib.suppress(OSError):  # a disk that is full
                self._file.close()
            if self._lost is not None:
                stopping.proceed(self._lost)

    def _live(self) -> None:
        while not self._ended.wait(BEAT):
            # A server that is away: the next beat may succeed.
            with contextlib.suppress(OSError, Lost):
                self._beat()
                self.check()
            with self._guard:
                if self._lost is not None and not self._ended.is_set():
                    stopping.halt(self._lost)
                    return

    def _beat(self) -> None:
        """Write into the open file, which is no one else's, whatever has its name by now."""
        with self._guard:
            if self._ended.is_set():
                return
            self._beats += 1
            os.pwrite(self._file.fileno(), lease_file.written(self.token, self._beats), 0)
            os.fsync(self._file.fileno())
            self._last = time.clock_gettime(_CLOCK)

    def _named(self) -> bool:
        """Whether the open file has a name: who takes a lease over removes it."""
        try:
            return os.fstat(self._file.fileno()).st_nlink > 0
        except (OSError, ValueError):  # ESTALE, over NFS; or it was let go of just now
            return False

    def _lose(self) -> Lost:
        """Note once, in whichever thread, what `release` takes back again."""
        for _ in range(_TRIES):  # who takes a lease over makes its own in the next moment
            if (seen := lease_file.look(self.folder)) is not None:
                break
            time.sleep(_PAUSE)
        with self._guard:
            if self._lost is None:
                self._lost = Lost(self.folder, seen.host if seen else None)
            return self._lost


_leases: dict[str, Lease] = {}  # that this process holds, by the folder's real path
_taking = threading.Lock()


def take(folder: Path) -> Lease:
    """Hold the folder, or hold it once more where this process does so already.

    Raises:
        Held: another process does.
        OSError: the folder cannot be written.
    """
    key = os.path.realpath(folder)
    with _taking:
        lease = _leases.get(key)
        if lease is not None and lease.pid == os.getpid() and lease.holders:
            lease.holders += 1
            return lease
        lease = _made(folder)
        _leases[key] = lease
    files.guard(key, lease.check)
    return lease


def let_go(lease: Lease) -> None:
    """Undo one `take`."""
    with _taking:
        lease.release()
        if not lease.holders:
            key = next(key for key, one in _leases.items() if one is lease)
            del _leases[key]
            files.unguard(key)


def _made(folder: Path) -> Lease:
    seen: Seen | None = None
    for _ in range(_TRIES):
        with contextlib.suppress(FileExistsError):
            return Lease(folder)
        seen = lease_file.look(folder)
        if seen is None:  # it was given back just now
            lease_file.remove_planted(folder)
            time.sleep(_PAUSE / _TRIES)
        elif seen.ended:
            lease_file.remove(folder, seen.content)
        elif seen.token:
            raise Held(seen)
        else:  # it is just being written
            time.sleep(_PAUSE)
    raise Held(seen or _NOBODY)

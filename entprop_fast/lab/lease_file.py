"""Say in a file who works in a folder, in a way that machines which share it understand alike.

The file is made exclusively (``O_EXCL``) and taken away by renaming it, which are atomic on local
disks and over NFS. No clock is compared: an owner counts in its file, and who sees a count stand
still for `LASTS` seconds of its own clock takes the owner for lost. On the owner's own machine its
end is seen at once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import socket
import stat
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

LEASE = ".lease"  # there while a process writes; a killed one leaves it behind
LASTS = 60.0  # seconds without a sign of life after which the owner is taken for lost

_LONGEST = 4096  # bytes
_GONE = {errno.ENOENT, errno.ESTALE, errno.ENOTDIR, errno.ELOOP}


class Machine(NamedTuple):
    """Name a machine, and say within what its process numbers mean something."""

    host: str
    processes: str  # empty: not known here, and no process is known to have ended


class Seen(NamedTuple):
    """Hold a lease as an observer reads it."""

    content: bytes
    host: str
    pid: int
    token: str  # of the lease; empty where the file is not whole
    here: bool  # its owner is of this machine
    ended: bool  # so it is, and is there no more


@functools.cache
def machine() -> Machine:
    """Return this machine; two containers of one kernel are two, since each counts processes."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return Machine(socket.gethostname(), f"{boot} {os.readlink('/proc/self/ns/pid')}")
    except OSError:  # not Linux
        return Machine(socket.gethostname(), "")


def written(token: str, beat: int) -> bytes:
    """Return a lease of this process; its length does not depend on `beat`."""
    here = machine()
    about = {
        "beat": f"{beat:012}",
        "host": here.host,
        "pid": os.getpid(),
        "processes": here.processes,
        "started": _started(os.getpid()),
        "token": token,
    }
    return f"{json.dumps(about)}\n".encode()


def look(folder: Path) -> Seen | None:
    """Read the folder's lease; None where there is none, or something else has its name."""
    try:
        content = _read(folder / LEASE)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return None if content is None else _seen(content)


def remove(folder: Path, content: bytes) -> bool:
    """Take a lease away, if it still says this; of several who try, one succeeds."""
    path, aside = folder / LEASE, folder / f"{LEASE}.{uuid.uuid4().hex}"
    try:
        if _read(path) != content:
            return False
        os.rename(path, aside)
        removed = _read(aside) == content
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    if not removed:  # another was faster, and this is its lease: back, unless the place is taken
        with contextlib.suppress(OSError):
            os.link(aside, path, follow_symlinks=False)
    aside.unlink(missing_ok=True)
    return removed


def remove_planted(folder: Path) -> None:
    """Remove what has a lease's name and is none: a link, a pipe, a second name of a file."""
    path = folder / LEASE
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        path.unlink(missing_ok=True)


class Watch:
    """Look at a folder's lease from time to time, and see whether its owner lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moved = False  # the owner was seen to live
        self._content, self._since = b"", 0.0

    def look(self) -> Seen | None:
        """Read the lease; one that did not change for `LASTS` seconds has ``ended``."""
        seen = look(self.folder)
        if seen is None:
            self._content = b""
            return None
        now = time.monotonic()
        if seen.content != self._content:
            self.moved = bool(self._content)
            self._content, self._since = seen.content, now
        elif now - self._since >= LASTS:
            return seen._replace(ended=True)
        return seen


def _read(path: Path) -> bytes | None:
    """Read a lease; None where a link to one, a pipe or a second name of a file is in its place."""
    flags = os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        content = os.read(descriptor, _LONGEST)
        return None if status.st_nlink > 1 and not _seen(content).token else content
    finally:
        os.close(descriptor)


def _seen(content: bytes) -> Seen:
    try:
        about: Any = json.loads(content)
        host, pid, token = str(about["host"]), int(about["pid"]), str(about["token"])
        processes, started = str(about["processes"]), str(about["started"])
        f"{host}{token}".encode()  # no half of a character
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        # It is just being written, or is no lease.
        return Seen(content, "an unknown machine", 0, "", False, False)
    here = bool(processes) and processes == machine().processes and host == machine().host
    ended = here and _started(pid) != started and not _hidden(pid)
    return Seen(content, host, pid, token, here, ended)


def _started(pid: int) -> str:
    """Return when a process began, in the kernel's count; empty for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _hidden(pid: int) -> bool:
    """Return whether there is a process of another user, which a /proc with hidepid hides."""
    try:
        os.kill(pid, 0)  # asks, and sends nothing
    except PermissionError:
        return not Path(f"/proc/{pid}").exists()
    except OSError:  # it has ended
        pass
    return False

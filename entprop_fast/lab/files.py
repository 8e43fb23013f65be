"""Make files anew: nothing is written through a link, a pipe or a second name that was planted.

A file that is opened for writing by its name alone is whatever that name leads to. Here it is a new
one (``O_EXCL``), put in the place of what was there. A folder that is itself a link is the user's
own choice, and fine. Nor is anything written in a folder that another process has taken over.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_MODE = 0o666  # less the user's umask, as `open` has it

_guards: dict[str, Callable[[], None]] = {}  # by the real path of a folder


def guard(folder: str, check: Callable[[], None]) -> None:
    """Call `check` before each write below a folder, named by its real path; it may raise."""
    _guards[folder] = check


def unguard(folder: str) -> None:
    """Write there without asking, from now on."""
    _guards.pop(folder, None)


def check_guards(path: Path) -> None:
    """Ask those who guard what `path` would be written into."""
    if _guards:
        folder = os.path.realpath(path.parent)
        for guarded, check in list(_guards.items()):
            if folder == guarded or folder.startswith(guarded + os.sep):
                check()


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Write the parts to ``path`` so that a reader sees the old file or the whole new one.

    Raises:
        OSError: the folder cannot be written, or the disk is full; ``path`` is then unchanged.
    """
    part = path.with_name(path.name + ".part")
    try:
        with create(part) as file:
            for data in parts:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        check_guards(path)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()  # a part of a file, on what may be a full disk
        raise OSError(error.errno, error.strerror, str(path)) from error  # a write names no file


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a readable JSON file, atomically."""
    text = json.dumps(plain_numbers(values), indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write a line of JSON for each row."""
    return "".join(f"{json.dumps(plain_numbers(row), allow_nan=False)}\n" for row in rows)


def plain_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put null for NaN and infinity, which JSON has not: there was nothing to average."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def create(path: Path) -> IO[bytes]:
    """Open a new file to write, in place of a file or link of that name.

    Raises:
        OSError: a folder has the name, or none can be made.
    """
    check_guards(path)
    path.unlink(missing_ok=True)
    return create_new(path)


def create_new(path: Path) -> IO[bytes]:
    """Open a new file to write, where nothing has its name.

    Raises:
        OSError: something has, or none can be made.
    """
    check_guards(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW
    return os.fdopen(os.open(path, flags, _MODE), "wb")


def append(path: Path) -> IO[bytes]:
    """Open the file that is there, to write at its end.

    Raises:
        OSError: it is a link, or is not there.
    """
    check_guards(path)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | _NO_FOLLOW), "ab")


def update(path: Path) -> IO[bytes]:
    """Open the file that is there, to write anywhere in it.

    Raises:
        OSError: it is a link, or is not there.
    """
    check_guards(path)
    return os.fdopen(os.open(path, os.O_RDWR | _NO_FOLLOW), "r+b")


def folder_within(root: Path, *names: str) -> Path:
    """Make the folder ``root/name/...`` where there is none, no part of it below a link.

    Raises:
        OSError: a name is that of a link or a file, or a folder cannot be made.
    """
    folder = root
    for name in names:
        folder = folder / name
        folder.mkdir(exist_ok=True)
        if folder.is_symlink():
            raise NotADirectoryError(f"{folder} is a link, and images would be written through it")
    return folder

"""Find the image files that cannot be read before a run begins, not in its 37th epoch.

Every file is decoded once, in threads (Pillow's decoders run beside each other). The verdict is
kept under ``$XDG_CACHE_HOME/entprop_fast`` (``~/.cache``), for the same paths, sizes and times of
change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from entprop_fast.lab import stopping
from entprop_fast.lab.data.image_files import FileList
from entprop_fast.lab.data.read_image import read_image
from entprop_fast.lab.files import create

T = TypeVar("T")

NAMED = 10  # files that a message names; it counts the others
TOLD_FROM = 20_000  # files whose decoding takes so long that it is announced

_AT_ONCE = 4096  # a waiting call takes a kilobyte, and ImageNet has 1.3 million files
_READER = b"2"  # counts the changes of what `read_image` takes for an image
_DRAFT = 32  # pixels: the whole file is parsed, and few of its pixels are computed


def unreadable(files: FileList, say: Callable[[str], None] | None = None) -> dict[int, str]:
    """Find the files that cannot be read: their numbers, and "path: why"."""
    name = f"{digest_of(files)}.json"
    # No verdict yet, a damaged one, or a user without a home.
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        found = _numbers(json.loads((_cache_folder() / name).read_text()), len(files))
        # A file may have been mended since with its size and time kept (chmod, rsync): look again.
        return {one: reason for one in found if (reason := _reason(files.path(one)))}
    if say is not None and len(files) >= TOLD_FROM:
        say(f"opening each of {len(files):,} images in {files.root} once, to see that all can be")
    reasons = in_threads(lambda number: _reason(files.path(number)), len(files))
    verdict = {number: reason for number, reason in enumerate(reasons) if reason}
    # No home, or one that cannot be written: decoded again next time.
    with contextlib.suppress(OSError, RuntimeError):
        kept = _cache_folder() / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        own = kept.with_suffix(f".{os.getpid()}")
        with create(own) as file:
            file.write(json.dumps(verdict).encode())
        own.replace(kept)
    return verdict


def _numbers(verdict: Any, count: int) -> list[int]:
    """Look up the numbers of the files that a kept verdict names."""
    if not isinstance(verdict, dict) or not all(str(one).isdecimal() for one in verdict):
        raise ValueError("no verdict")
    numbers = [int(one) for one in verdict]
    if any(one >= count for one in numbers):
        raise ValueError("a verdict on other files")
    return numbers


def in_threads(function: Callable[[int], T], count: int) -> Iterator[T]:
    """Yield ``function(0) ... function(count - 1)``, in order; a bounded number of them waits."""
    pool = ThreadPoolExecutor()
    try:
        for first in range(0, count, _AT_ONCE):
            for result in pool.map(function, range(first, min(first + _AT_ONCE, count))):
                yield result
                stopping.check()
    finally:
        pool.shutdown(cancel_futures=True)


def summary(what: str, total: int, reasons: dict[int, str]) -> str:
    """Say in one line how many files cannot be read, and name the first ones."""
    named = "; ".join(list(reasons.values())[:NAMED])
    more = f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return f"{len(reasons):,} of {total:,} {what} images cannot be read: {named}{more}"


def _reason(path: Path) -> str:
    try:
        read_image(path, draft=_DRAFT)
    except OSError as error:
        return str(error)
    return ""


def digest_of(files: FileList) -> str:
    """Return the SHA-256 of everything that a verdict depends on, short of the files' bytes."""
    digest = hashlib.sha256(_READER)
    for number in range(len(files)):
        stopping.check()
        path = files.path(number)
        try:
            status = path.stat()
            state = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            state = "absent"
        digest.update(f"{path.absolute()}\0{state}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "entprop_fast" / "verified"

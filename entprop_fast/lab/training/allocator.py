"""Keep the memory that a step frees with the process, for the next step."""

import ctypes
import sys
from typing import Protocol, cast

# <malloc.h>; what mallopt takes is an int.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
_NEVER_TRIM = 2**31 - 1
# glibc before 2.35 refuses more than half of the heap of a thread.
_MMAP_THRESHOLDS = (1 << 30, 32 << 20)


class _Mallopt(Protocol):
    def __call__(self, parameter: int, value: int) -> int: ...


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, up to 2 GB, and take large blocks from that too.

    By default glibc gives blocks of megabytes back to the system as they are freed, and every step
    takes them again, one page fault for each 4 KB (docs/step/README.md has what that costs). It
    concerns the whole process: a run of `engine` asks for it, an import never does.

    Returns:
        Whether it did: False without glibc, where nothing changes.
    """
    mallopt = _mallopt()
    if mallopt is None:
        return False
    kept = mallopt(M_TRIM_THRESHOLD, _NEVER_TRIM) == 1
    return kept and any(mallopt(M_MMAP_THRESHOLD, size) == 1 for size in _MMAP_THRESHOLDS)


def _mallopt() -> _Mallopt | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    # musl has a mallopt in name only, if any.
    if not hasattr(library, "gnu_get_libc_version") or not hasattr(library, "mallopt"):
        return None
    return cast(_Mallopt, library.mallopt)

"""The C library's allocator keeps what a step frees, and says so only where that is true."""

import platform
import sys

import pytest

from entprop_fast.lab.training import allocator
from tests.children import printed, run_python

GLIBC = platform.libc_ver()[0] == "glibc"
# In a process of its own: the setting cannot be taken back. 64 MB, written and freed eight times.
FAULTS = """
import ctypes, resource, sys
from entprop_fast.lab.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
size = 64 << 20
def write_and_free():
    block = libc.malloc(size)
    ctypes.memset(block, 1, size)
    libc.free(block)
write_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    write_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not GLIBC, reason="mallopt is glibc's")
def test_freed_memory_is_taken_again_without_page_faults() -> None:
    kept, default = (int(printed(run_python("-c", FAULTS, how))) for how in ("keep", "default"))
    assert kept < 8 * (64 << 20) // 4096 / 100
    assert default > 8  # huge pages where the system has them, but faults


@pytest.mark.parametrize(("most", "kept"), [(32 << 20, True), (0, False)])
def test_an_old_glibc_gets_the_threshold_that_it_takes(
    most: int, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal is told."""
    calls = []

    def mallopt(parameter: int, value: int) -> int:
        calls.append((parameter, value))
        return int(parameter == allocator.M_TRIM_THRESHOLD or value <= most)

    monkeypatch.setattr(allocator, "_mallopt", lambda: mallopt)
    assert allocator.keep_freed_memory() is kept
    assert calls[-1] == (allocator.M_MMAP_THRESHOLD, 32 << 20)


def test_without_glibc_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not allocator.keep_freed_memory()

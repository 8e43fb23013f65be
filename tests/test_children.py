"""What tests start ends with them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.children import ROOT, running

WITH_A_CHILD = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "600"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
INTERRUPTED = """
import time
from tests.children import running
with running(["sleep", "600"]) as one:
    print(one.pid, flush=True)
    time.sleep(600)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc and the kernel")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(*pids: int) -> bool:
    until = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(alive, pids))


def test_a_command_and_its_children_end_with_the_block() -> None:
    """FOUND N9: also where the test fails or is interrupted."""
    with pytest.raises(KeyboardInterrupt), running([sys.executable, "-c", WITH_A_CHILD]) as one:
        assert one.stdout is not None
        pids = [int(word) for word in one.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        raise KeyboardInterrupt
    assert gone(*pids)


def test_a_command_ends_with_tests_that_are_killed() -> None:
    """FOUND N9: by SIGKILL, which nothing of theirs survives."""
    with running([sys.executable, "-c", INTERRUPTED], PYTHONPATH=str(ROOT)) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        assert alive(pid) and os.getpgid(pid) != tests.pid
        tests.kill()
        assert gone(pid)

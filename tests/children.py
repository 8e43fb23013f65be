"""Processes that end with their test, and the compiler that a test may need."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from csrc.toolchain import Toolchain, Unavailable, find_toolchain

ROOT = Path(__file__).parents[1]
TAIL = 8000  # characters
Ran = subprocess.CompletedProcess[str]


def toolchain_for(source: Path) -> Toolchain:
    """What compiles `source`; the test is skipped where nothing does."""
    try:
        return find_toolchain("cpu")
    except Unavailable as missing:
        pytest.skip(f"{source.name} cannot be compiled: {missing}")


def end_with_parent() -> None:
    """Let the kernel kill the calling process when its parent ends, by SIGKILL too (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def running(command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command in this tree, in a process group of its own, which ends with the block."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as in a terminal, where Ctrl-C reaches every process of a group
        preexec_fn=end_with_parent,
    )
    try:
        with process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def run_python(*arguments: str, **environment: str) -> Ran:
    """Run Python in this tree, with these variables beside those that are set."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        errors="backslashreplace",  # of what a dying process wrote
        timeout=600,
        check=False,
        preexec_fn=end_with_parent,
    )


def printed(ran: Ran) -> str:
    """What a process printed; how it ended, and where, if it failed."""
    code = ran.returncode
    ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    assert code == 0, (
        f"{' '.join(ran.args)}: {ended}\n"
        f"stderr ends with:\n{ran.stderr[-TAIL:]}\nstdout ends with:\n{ran.stdout[-TAIL:]}"
    )
    return ran.stdout

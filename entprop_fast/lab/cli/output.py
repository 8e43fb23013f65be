"""Keep a command going when its output is lost: its files are what counts."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# How a stream may answer a character that its encoding lacks: by an error.
_RAISING = ("strict", "surrogateescape", "surrogatepass")


class Output:
    """Wrap a stream that goes on after an error as if it were written to.

    Attributes:
        error: the first one: a reader that has gone (``| head``), a full disk, a closed terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write, unless an error came before."""
        if self.error is None:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._lost(error)
        return len(text)

    def flush(self) -> None:
        """Flush, unless an error came before."""
        if self.error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lost(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lost(self, error: OSError) -> None:
        """Let what is still in the buffer, and child processes, write to nowhere."""
        self.error = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with contextlib.suppress(io.UnsupportedOperation):  # a stream without a file
            os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def lasting() -> Iterator[Output]:
    """Keep stdout and stderr from raising within; give stdout.

    Nor does a character that stdout's encoding lacks, in a file's name or a table.
    """
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in _RAISING:
        sys.stdout.reconfigure(errors="replace")
    # None where the file was closed from the start, as a daemon's may be.
    out, err = (Output(one or open(os.devnull, "w")) for one in before)
    sys.stdout, sys.stderr = out, err
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def missed(error: OSError | None) -> OSError | None:
    """Return the error, unless whoever read the output wanted no more of it."""
    return None if error is None or error.errno == errno.EPIPE else error

"""Running one case in this process, and what must hold after it."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from markupsafe import Markup
from PIL import Image

from entprop_fast.lab import data
from entprop_fast.lab.cli import study, train
from entprop_fast.lab.data import digits
from entprop_fast.lab.evaluation.saved_counts import COUNTS
from entprop_fast.lab.experiments import runner
from entprop_fast.lab.report import pictures
from entprop_fast.lab.run_report import curves
from entprop_fast.lab.training import finish
from entprop_fast.lab.training.errors import RunFailed
from entprop_fast.models import create

LIMIT = 30.0  # seconds of work in a case: what takes so long hangs,
LONGEST = 300.0  # as does what waits so long, on a machine that others use as well

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {f"os.{name}" for name in "mkdir remove rename rmdir link symlink truncate".split()}
_HARMLESS = ("/dev/", "/proc/self/")

Case = Callable[[], int]


class Hangs(BaseException):
    """A case that did not end in time."""


class Sandbox:
    """A folder in which cases run, with a finished run and what else they start from."""

    def __init__(self, root: Path) -> None:
        self.work = root / "work"  # the current folder of a case, made anew for each
        self.kept = root / "kept"  # what cases copy from, and nobody may change
        self.out = self.work / "out"
        self.cache = root / "cache"
        self.kept.mkdir(parents=True)
        self.cache.mkdir()
        self.finished = self.kept / "finished"
        small = "--train-size 40 --batch-size 20 --epochs 2 --threads 1 --device cpu".split()
        with contextlib.redirect_stdout(io.StringIO()):
            assert train.main([*small, "--out", str(self.finished)]) == 0
        self.network = create("wrn10_0.5", num_classes=10, in_channels=1)
        self.images = self.kept / "images"
        _write_images(self.images)
        self._stray: list[str] = []
        self._watching = False
        sys.addaudithook(self._watch)
        self._before = self._kept_state()

    def run(self, case: Callable[[], Case]) -> str | None:
        """Have a case put files into the current folder, run what it returns; say what is wrong."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        said, failed = io.StringIO(), io.StringIO()
        self._stray.clear()
        code: int | str | None
        try:
            with contextlib.chdir(self.work):
                command = case()
                outputs = contextlib.redirect_stdout(said), contextlib.redirect_stderr(failed)
                with outputs[0], outputs[1], _limited():
                    self._watching = True
                    code = command()
        except SystemExit as stop:  # --help
            code = stop.code
        except (Hangs, Exception):
            return traceback.format_exc()
        finally:
            self._watching = False
        return self._wrong(code, failed.getvalue())

    def _wrong(self, code: object, failed: str) -> str | None:
        lines = [one for one in failed.splitlines() if not one.startswith("warning: ")]
        if code not in (0, 1, 2):
            return f"exit code {code!r}; {failed}"
        word = {0: None, 1: "failed: ", 2: "error: "}[code]
        if word is None and lines:
            return f"exit code 0 and words on stderr: {failed!r}"
        if word is not None and (len(lines) != 1 or not lines[0].startswith(word)):
            return f"exit code {code} and not one line of {word!r}: {failed!r}"
        if any(ord(one) < 32 for line in lines for one in line):
            return f"control characters: {failed!r}"
        if self._stray:
            return f"written outside of the run folder: {self._stray}"
        if self._kept_state() != self._before:
            return "changed what it only reads"
        return None

    def _kept_state(self) -> list[tuple[str, int, int]]:
        # Files only: a folder's time changes where an evaluation keeps its counts for a while.
        found = ((path, path.stat()) for path in sorted(self.kept.rglob("*")) if path.is_file())
        return [(str(path), status.st_size, status.st_mtime_ns) for path, status in found]

    def _watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note every opening to write, and every other change, beside the run folder."""
        if not self._watching or (event != "open" and event not in _CHANGES):
            return
        places = arguments[:1] if event != "os.rename" else arguments[:2]
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
        for place in places:
            if isinstance(place, int):
                continue
            path = os.path.abspath(os.fsdecode(place))
            if not (path.startswith(_HARMLESS) or self._allowed(path)):
                self._stray.append(f"{event} {path}")

    def _allowed(self, path: str) -> bool:
        # An evaluation keeps its counts beside the network while it lasts.
        if Path(path).match(f"{self.finished}/{COUNTS}*"):
            return True
        roots = (self.out, self.work / "runs", self.cache)
        return any(path == str(root) or path.startswith(f"{root}/") for root in roots)


@contextlib.contextmanager
def prepared(root: Path) -> Iterator[Sandbox]:
    """A sandbox; what would start processes or train for long is left out while it is open."""

    def no_runs(*_: object) -> None:
        raise RunFailed("no runs here")

    sandbox = Sandbox(root)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "HOME"):
            patch.setenv(name, str(sandbox.cache))
        patch.setattr(data.datasets, "load_digits", functools.cache(digits.load_digits))
        patch.setattr(runner, "do_runs", no_runs)
        patch.setattr(study, "write", no_runs)
        patch.setattr(finish, "draw_heat_map_of", lambda *_: None)  # half of a small run's time
        for name in ("draw_curves", "draw_examples"):
            patch.setattr(pictures, name, lambda *_: None)
        patch.setattr(curves, "_draw", lambda *_: Markup(""))
        yield sandbox


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def late(signum: int, frame: FrameType | None) -> None:
        raise Hangs

    timers = (
        (signal.ITIMER_PROF, signal.SIGPROF, LIMIT),
        (signal.ITIMER_REAL, signal.SIGALRM, LONGEST),
    )
    before = [signal.signal(signum, late) for _, signum, _ in timers]
    for timer, _, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (timer, signum, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(signum, handler)


def _write_images(folder: Path) -> None:
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png", "b/2 .png", "c.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name) * 20, 0, 90)).save(path)

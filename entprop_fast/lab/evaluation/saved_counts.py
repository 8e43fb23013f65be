"""Save what an evaluation has counted so far: after a stop or a kill it goes on from there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from entprop_fast.lab import checkpoint, in_step, stopping
from entprop_fast.lab.data import ImageFiles, ImageSet
from entprop_fast.lab.data.verify import digest_of
from entprop_fast.lab.evaluation.running_metrics import RunningMetrics, State
from entprop_fast.lab.job import current

T = TypeVar("T")

_FORMAT = 2  # of the counts; another one where `RunningMetrics` keeps something else
COUNTS = "evaluation-*.part"  # the files, * for their keys
EVERY = 5.0  # seconds between two writes: the most that a kill can cost

Counted = Callable[[str, int], bool]


class SavedCounts:
    """Keep the counts of a command's evaluations, each in a file of `folder` while they last.

    As a context manager: a stop within writes what was counted, the end removes the files.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self._files: dict[Path, EvaluationCounts] = {}

    def counts(self, key: str) -> EvaluationCounts:
        """Open an evaluation's counts; `key` is `key_of` all that its result depends on."""
        if not current().is_main:
            return EvaluationCounts()
        path = self.folder / COUNTS.replace("*", key[:16])
        self._files[path] = counts = EvaluationCounts(path, self.say)
        return counts

    def __enter__(self) -> SavedCounts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for path, counts in self._files.items():
            kept = error is not None and counts.save()
            if isinstance(error, stopping.Stopped) and kept:
                error.saved = f"the evaluation so far is kept in {self.folder}"
            elif error is None:
                path.unlink(missing_ok=True)


class EvaluationCounts:
    """Hold what one network's evaluation has counted, phase by phase, in all processes of a job.

    Rank 0 has the file, and its counts begin with those that were found there; the other processes
    count their own, which are added up now and then.

    Args:
        path: of the file, which rank 0 alone has; None: nothing is kept.
        say: told what was found there.
    """

    def __init__(
        self, path: Path | None = None, say: Callable[[str], None] = lambda text: None
    ) -> None:
        self.path, self.say = path, say
        self._phases: dict[str, State] = {}  # each stacked, by its metrics
        self._now: tuple[str, Mapping[str, RunningMetrics]] | None = None
        self._saved = time.monotonic()
        with in_step.together():
            if path is not None and path.exists():
                try:
                    self._phases = checkpoint.read(path)
                    say(f"goes on with what was counted before, in {path}")
                except (ValueError, OSError) as error:
                    say(f"{error}: counted anew")
        self._phases = current().from_main(self._phases)

    def begin(self, phase: str, metrics: Mapping[str, RunningMetrics]) -> Counted:
        """Begin a phase with empty metrics, or with what was counted of it before.

        Args:
            phase: its name, other than every other one's.
            metrics: all of as many images.

        Returns:
            Whether the batch from an image on is counted already, given the name of its metrics.
        """
        self._now = phase, metrics
        before = self._phases.get(phase)
        if before is None:
            return lambda name, first: False
        if current().is_main:  # once in the sum of all processes
            _load(metrics, before)
        counted = dict(zip(metrics, before["answers"], strict=True))
        return lambda name, first: bool(counted[name][first])

    def work_through(
        self,
        share: Iterable[T],
        add: Callable[[T], int],
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Count this process's share of the phase that was begun, then add all processes' up.

        Args:
            share: samples that are not counted yet.
            add: counts one, and returns how many images that were.
            progress: told how many images all processes have counted, those of before included.
        """
        assert self._now is not None
        job = current()
        _, metrics = self._now
        done = job.from_main(sum(one.total for one in metrics.values()))

        def heard(images: float, ends: bool) -> None:
            nonlocal done
            done += int(images)
            progress(done)
            if ends:
                self._take()
            elif job.from_main(time.monotonic() - self._saved >= EVERY):
                self._take()
                self.save()

        in_step.work_through(share, add, heard)
        _load(metrics, self._take())
        self._now = None

    def save(self) -> bool:
        """Write what was counted, if there is anything and a file for it; return whether it was."""
        self._saved = time.monotonic()
        if self.path is None or not self._phases:
            return False
        try:
            checkpoint.write(self.path, self._phases)
        except OSError as error:
            self.say(f"the counts so far cannot be kept: {error}")
            self.path = None
        return self.path is not None

    def _take(self) -> State:
        """Add up what all processes have counted of the phase at hand; all of them are here."""
        assert self._now is not None
        phase, metrics = self._now
        states = [one.state_dict() for one in metrics.values()]
        taken = {name: torch.stack([one[name] for one in states]) for name in states[0]}
        for counts in taken.values():
            current().add_up(counts)
        if taken["answers"].any():
            self._phases[phase] = taken
        return taken


def _load(metrics: Mapping[str, RunningMetrics], taken: State) -> None:
    for row, one in enumerate(metrics.values()):
        one.load_state_dict({name: counts[row] for name, counts in taken.items()})


def key_of(model: nn.Module, data: ImageSet, settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the weights, the clean test images and the settings.

    Image files count by path, size and time of change.
    """
    digest = hashlib.sha256(
        json.dumps([_FORMAT, torch.__version__, settings], default=str).encode()
    )
    digest.update(repr(model).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        _add(digest, value)
    digest.update(f"{data.name} {data.image_shape} {data.num_classes}".encode())
    if isinstance(data, ImageFiles):
        digest.update(digest_of(data.test).encode())
    else:
        _add(digest, data.test_images)
    _add(digest, data.test_labels)
    return digest.hexdigest()


def _add(digest: Any, value: object) -> None:
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    else:  # a module's extra state
        digest.update(repr(value).encode())

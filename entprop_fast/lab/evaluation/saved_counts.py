"""Save what an evaluation has counted so far: after a stop or a kill it goes on from there."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from entprop_fast.lab import checkpoint, stopping
from entprop_fast.lab.data import ImageFiles, ImageSet
from entprop_fast.lab.data.verify import digest_of
from entprop_fast.lab.evaluation.running_metrics import RunningMetrics

T = TypeVar("T")

_FORMAT = 1  # of the counts; another one where `RunningMetrics` keeps something else
COUNTS = "evaluation-*.part"  # the files, * for their keys
EVERY = 5.0  # seconds between two writes: the most that a kill can cost

State = dict[str, Any]


class SavedCounts:
    """Keep the counts of a command's evaluations, each in a file of `folder` while they last.

    As a context manager: a stop within writes what was counted, the end removes the files.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self._files: dict[Path, EvaluationCounts] = {}

    def counts(self, key: str) -> EvaluationCounts:
        """Open an evaluation's counts; `key` is `key_of` all that its result depends on."""
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
    """Hold what one network's evaluation has counted, phase by phase."""

    def __init__(self, path: Path | None, say: Callable[[str], None]) -> None:
        self.path, self.say = path, say
        self._phases: dict[str, State] = {}
        self._now: tuple[str, Mapping[str, RunningMetrics]] | None = None
        self._done = 0  # samples of the phase at hand
        self._saved = time.monotonic()
        if path is not None and path.exists():
            try:
                self._phases = checkpoint.read(path)
                say(f"goes on with what was counted before, in {path}")
            except (ValueError, OSError) as error:
                say(f"{error}: counted anew")

    def remaining(
        self,
        phase: str,
        metrics: Mapping[str, RunningMetrics],
        samples: Callable[[int], Iterator[T]],
    ) -> Iterator[T]:
        """Yield the samples of a phase that are not counted yet; the caller adds each of them.

        Args:
            phase: its name, other than every other one's.
            metrics: empty ones, to which the caller adds a sample before it takes the next one.
            samples: gives all samples after the first so many.
        """
        self._done = 0
        if (before := self._phases.get(phase)) is not None:
            self._done = before["done"]
            for name, one in metrics.items():
                one.load_state_dict(before["tallies"][name])
        self._now = phase, metrics
        for sample in samples(self._done):
            yield sample
            self._done += 1
            stopping.check()
            if time.monotonic() - self._saved >= EVERY:
                self.save()
        self._take()
        self._now = None

    def save(self) -> bool:
        """Write what was counted, if there is anything and a file for it; return whether it was."""
        self._take()
        self._saved = time.monotonic()
        if self.path is None or not self._phases:
            return False
        try:
            checkpoint.write(self.path, self._phases)
        except OSError as error:
            self.say(f"the counts so far cannot be kept: {error}")
            self.path = None
        return self.path is not None

    def _take(self) -> None:
        if self._now is not None and self._done:
            phase, metrics = self._now
            counted = {name: one.state_dict() for name, one in metrics.items()}
            self._phases[phase] = {"done": self._done, "tallies": counted}


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

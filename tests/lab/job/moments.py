"""Moments of a run by kind and number, the same in each run, at any of which a process may die."""

from __future__ import annotations

import functools
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import distributed

from entprop_fast.lab.training import epoch_scores
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.lab.training.trainer import Trainer
from tests.lab.training.faults import SaveFault, killed

SAVES = "call of a save"


class Moment(NamedTuple):
    """A moment of one process."""

    rank: int
    kind: str
    number: int  # from 1


def count(folder: Path, rank: int) -> None:
    """Count the moments of a run into a file."""
    counts = Counter[str]()

    def passes(kind: str) -> None:
        counts[kind] += 1
        (folder / f"{rank}.json").write_text(json.dumps(counts))

    _watch(pytest.MonkeyPatch(), passes)


def kill(moment: Moment, rank: int) -> None:
    """Let the process of one rank be killed at a moment of its run."""
    seen = Counter[str]()

    def passes(kind: str) -> None:
        seen[kind] += 1
        if kind == moment.kind and seen[kind] == moment.number:
            killed()

    if rank == moment.rank:
        _watch(pytest.MonkeyPatch(), passes)


def drawn(counts: list[Mapping[str, int]], number: int, seed: int) -> list[Moment]:
    """Draw moments of runs, each kind of each rank about as often as any other."""
    generator = random.Random(seed)
    kinds = [(rank, kind) for rank, by_kind in enumerate(counts) for kind in sorted(by_kind)]
    generator.shuffle(kinds)
    return [
        Moment(rank, kind, generator.randint(1, counts[rank][kind]))
        for rank, kind in (kinds * number)[:number]
    ]


def _watch(patch: pytest.MonkeyPatch, passes: Callable[[str], None]) -> None:
    """Call `passes` with the kind of each moment that comes."""
    stepping = False
    train_batch, all_reduce = Trainer._train_batch, distributed.all_reduce

    def step(self: Trainer, *batch: Any) -> bool:
        nonlocal stepping
        passes("begin of a step")
        stepping = True
        try:
            return train_batch(self, *batch)
        finally:
            stepping = False
            passes("end of a step")

    def exchange(*args: Any, **more: Any) -> Any:
        if stepping:
            passes("exchange of a step")
        return all_reduce(*args, **more)

    def around(call: Callable[..., Any], what: str) -> Callable[..., Any]:
        @functools.wraps(call)
        def watched(*args: Any, **more: Any) -> Any:
            passes(f"begin of {what}")
            found = call(*args, **more)
            passes(f"end of {what}")
            return found

        return watched

    patch.setattr(Trainer, "_train_batch", step)
    patch.setattr(distributed, "all_reduce", exchange)
    patch.setattr(epoch_scores, "accuracies", around(epoch_scores.accuracies, "an evaluation"))
    patch.setattr(RunFolder, "append_row", around(RunFolder.append_row, "an epoch's row"))
    EverySave(patch, lambda: passes(SAVES))


class EverySave(SaveFault):
    """Let something happen at every call of every save."""

    def __init__(self, patch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
        super().__init__(patch, 0, 0, act)

    def _watched(self, save: Callable[..., None]) -> Callable[..., None]:
        def watched(*args: Any) -> None:
            self._armed = True
            try:
                save(*args)
            finally:
                self._armed = False

        return watched

    def happens(self, half: Callable[[], object] | None = None) -> None:
        if self._armed:
            self._act()

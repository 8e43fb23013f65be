"""Go back to a checkpoint where numbers broke, and leave out the steps that led there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from entprop_fast.lab.training.errors import NotFinite, RunFailed

MOST = 3  # times that a run goes back without having saved a step that it took in between


class Rollbacks:
    """Count how often a run went back, and know the steps that it leaves out.

    The first time after a checkpoint it leaves out two steps, the one whose loss broke and the one
    before, whose update may have broken the weights; the next times four and eight.

    Args:
        allowed: False: what broke ends the run.

    Attributes:
        count: times that the run went back.
    """

    def __init__(self, *, allowed: bool) -> None:
        self.allowed, self.count = allowed, 0
        self._skipped: set[int] = set()
        self._place, self._tries = -1, 0  # the last step it went back to, and how often

    def take(self, error: NotFinite, place: int) -> str:
        """Note that the run goes back to step `place`, and say so in a line.

        Raises:
            NotFinite: `error`, where going back is not allowed.
            RunFailed: the run went back often enough.
        """
        if not self.allowed:
            raise error
        taken = place  # the last step of the checkpoint that was not left out
        while self.skips(taken):
            taken -= 1
        self._tries = self._tries + 1 if taken <= self._place else 1
        self._place = max(taken, self._place)
        if self._tries > MOST:
            raise RunFailed(
                f"{error}, again after {MOST} rollbacks without a new step that was saved"
            )
        self.count += 1
        first = max(place, error.step - 2**self._tries) + 1
        self._skipped.update(range(first, error.step + 1))
        return (
            f"{error}: back to the checkpoint of step {place}, steps {first} to {error.step} are "
            f"left out (rollback {self._tries} of {MOST})"
        )

    def skips(self, step: int) -> bool:
        """Return whether a step, counted from 1, is left out."""
        return step in self._skipped

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"count": self.count, "skipped": sorted(self._skipped)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, beside what came to pass since it was saved.

        Raises:
            ValueError: it is nothing of the kind.
        """
        count, skipped = state["count"], state["skipped"]
        if type(count) is not int or not all(type(one) is int for one in skipped):
            raise ValueError(f"the rollbacks are {count!r}, the steps left out {skipped!r}")
        self.count = max(self.count, count)
        self._skipped.update(skipped)

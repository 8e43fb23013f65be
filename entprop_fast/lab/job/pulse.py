"""Agree between steps, a few times a second, on what only some processes know."""

from __future__ import annotations

import time

from entprop_fast.lab.job.members import current

_PAUSE = 0.25  # seconds between two questions
_MOST = 64  # steps between them, for steps may become slower


class Pulse:
    """Ask the processes of a job what each wishes; a process alone asks itself at every step."""

    def __init__(self) -> None:
        self._steps, self._every = 0, 1
        self._asked = time.monotonic()

    def turn(self, *wishes: float) -> list[float] | None:
        """Return the largest of everybody's wish, each on its own; None where nobody asks now.

        All processes call it after every step, and ask at the same ones: rank 0 says when next.
        """
        job = current()
        if job.world == 1:
            return list(wishes)
        self._steps += 1
        if self._steps < self._every:
            return None
        now = time.monotonic()
        took = max(1e-6, (now - self._asked) / self._steps)
        every = max(1, min(_MOST, int(_PAUSE / took))) if job.is_main else 0
        *told, agreed = job.largest_each([*wishes, every])
        self._steps, self._every, self._asked = 0, int(agreed), time.monotonic()
        return told

"""How far an evaluation is, for who waits for it."""

from __future__ import annotations

from typing import NamedTuple


class Measured(NamedTuple):
    """What ``evaluate_model(progress=...)`` is called with after every batch."""

    what: str  # is being measured: clean images, corruptions, an attack
    done: int  # forward passes of an image, or images attacked
    total: int
    detail: str = ""  # the kind of corruption, and which one it is of how many

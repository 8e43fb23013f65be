"""Define how an evaluation says how far it is."""

from __future__ import annotations

from typing import NamedTuple


class Measured(NamedTuple):
    """Say how far an evaluation is: ``evaluate_model(progress=...)`` is called with it."""

    what: str  # is being measured: clean images, corruptions, an attack
    done: int  # forward passes of an image, or images attacked
    total: int
    detail: str = ""  # the kind of corruption, and which one it is of how many

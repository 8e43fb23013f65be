"""Name networks and images of one's own in settings: ``model:MODULE:FUNCTION``, ``data:...``."""

from __future__ import annotations

MODEL = "model:"  # how the arch of a network of one's own begins
DATA = "data:"  # how the name of a data set of one's own begins

FUNCTION = "MODULE:FUNCTION"


def short(name: str) -> str:
    """Return a network's or a data set's name, of one's own the function alone."""
    return name.rpartition(":")[2] if name.startswith((MODEL, DATA)) else name


def other_images(arch: str, dataset: str) -> str:
    """Say how one's own network gets one's own images; empty where it has them, or is none."""
    if not arch.startswith(MODEL) or dataset.startswith(DATA):
        return ""
    return f"--data {FUNCTION} gives images of your own, --dataset names others"

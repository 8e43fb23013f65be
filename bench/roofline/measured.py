"""Find what was measured of a counted step: its time, and its kernels' by class."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from bench import rows
from bench.pages import ROOT
from bench.roofline.cards import Card
from bench.roofline.op import COPIES, ELEMENTWISE, NORMS, OPTIMISER, OURS, PRODUCTS
from bench.roofline.steps import ENTPROP, PLAIN, STEPS, Step
from bench.rows import Row
from bench.step import contenders as c
from bench.step.table import name_of

PROFILE = Path("docs/step/profile_h100.txt")
CAPTURED = "captured_cuda"  # rows of captured steps alone, later than those beside baselines
# The classes of `bench.step.profile`, and whose steps it profiles, in the words of this page.
_KINDS = {
    "our norms": NORMS,
    "cuDNN and native norms": NORMS,
    "convolutions and products": PRODUCTS,
    "other elementwise": ELEMENTWISE,
    "copies": COPIES,
    "optimiser": OPTIMISER,
    "our loss, selection, attack": OURS,
}
_PROFILED = {c.CAPTURED: ENTPROP, c.VANILLA_CHANNELS_LAST: PLAIN}
PROFILED_CARD = "H100"  # the text does not name it, its file does


def measured(arch: str, step: Step, card: Card, *, captured: bool) -> Row | None:
    """Return the committed row of such a step on a card; None where there is none with a time."""
    contender = step.captured if captured else step.eager
    for row in _rows():
        told = step.k_and_n in (None, (row["k"], row["n"])) and row["arch"] == arch
        if (
            told
            and row["contender"] == contender
            and row["seconds"]
            and card.name in row["machine"]
        ):
            return row
    return None


def launches(arch: str, step: Step, card: Card) -> int | None:
    """Return the launches that a profiler counted in such a step, captured if it was."""
    contenders = [name for name in (step.captured, step.eager) if name is not None]
    for contender in contenders:
        for row in _rows():
            if _is(row, arch, step, card, contender) and row.get("launches") is not None:
                return int(row["launches"])
    return None


def _is(row: Row, arch: str, step: Step, card: Card, contender: str) -> bool:
    same = row["arch"] == arch and row["contender"] == contender and card.name in row["machine"]
    return same and step.k_and_n in (None, (row["k"], row["n"]))


def _rows() -> Iterator[Row]:
    """Yield rows of steps on CUDA, those of captured steps alone first: they are later."""
    if rows.there(CAPTURED):
        yield from ({"contender": c.CAPTURED} | row for row in rows.read(CAPTURED))
    if rows.there(name_of("cuda")):
        yield from rows.read(name_of("cuda"))


def profiled() -> dict[tuple[str, str], dict[str, float]]:
    """Return the seconds of a step's kernels by class, by network and the step's name."""
    found = profiled_in((ROOT / PROFILE).read_text())
    known = ((arch, name) for arch, name in found if name in _PROFILED)
    return {(arch, _PROFILED[name].name): found[arch, name] for arch, name in known}


def profiled_in(text: str) -> dict[tuple[str, str], dict[str, float]]:
    """Read what `bench.step.profile` printed: seconds by network and contender, and by class."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    times: dict[str, float] = {}
    for line in text.splitlines():
        if title := re.match(r"(\w+), (.+): \d+ us a step", line):
            times = found[title[1], title[2]] = defaultdict(float)
        elif of_kind := re.match(r" +([\d.]+) us +\d+%  (.+)", line):
            times[_KINDS[of_kind[2]]] += 1e-6 * float(of_kind[1])
    return {key: dict(times) for key, times in found.items()}


def step_called(name: str) -> Step:
    """Return the step of that name."""
    return next(step for step in STEPS if step.name == name)

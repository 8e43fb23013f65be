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


def measured(row: Row, step: Step, card: Card, *, captured: bool) -> Row | None:
    """Return the committed row of a counted step on a card; None where there is none with a time.

    Args:
        row: of the counts; network, batch and pixels are the same in both.
        step: what was counted.
        card: that was measured.
        captured: as a graph.
    """
    contender = step.captured if captured else step.eager
    known = (one for one in _of(row, step, card) if one["contender"] == contender)
    return next((one for one in known if one["seconds"]), None)


def launches(row: Row, step: Step, card: Card) -> int | None:
    """Return the launches that a profiler counted in such a step, captured if it was."""
    known = {one["contender"]: one.get("launches") for one in _of(row, step, card)}
    found = (known.get(name) for name in (step.captured, step.eager))
    return next((int(one) for one in found if one is not None), None)


def _of(row: Row, step: Step, card: Card) -> Iterator[Row]:
    """Yield the committed rows of a counted step's size, k and n, whoever took it."""
    if not rows.there(name_of("cuda")):
        return
    of_card = (one for one in rows.read(name_of("cuda")) if card.name in one["machine"])
    for one in rows.comparable(of_card):
        same = all(one[field] == row[field] for field in ("arch", "batch", "pixels"))
        chosen = step.k_and_n in (None, (one["k"], one["n"]))
        if same and chosen:
            yield one


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

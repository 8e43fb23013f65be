"""Compare the rows of steps with what was aimed at; what has no row is said to be unmeasured."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bench import rows
from bench.step import contenders as c

Quantity = Literal["seconds", "peak_memory"]
H100 = "NVIDIA H100 80GB HBM3"


@dataclass(frozen=True)
class Target:
    """Aim at ``quantity(ours) / quantity(base) <= at_most`` at one setting.

    Attributes:
        ours: the first of these that was measured.
        base: the least of these; without any, `at_most` is in seconds.
        card: on which seconds were aimed at. They say nothing about another one.
    """

    device: str
    arch: str
    k: float
    n: int
    base: tuple[str, ...]
    at_most: float
    quantity: Quantity = "seconds"
    ours: tuple[str, ...] = (c.CAPTURED, c.OURS)
    card: str | None = None

    @property
    def is_speedup(self) -> bool:
        """Whether it is told as times faster rather than as a share of the base's time."""
        plain = (c.REFERENCE, c.NAIVE, c.COMPILED)
        return self.quantity == "seconds" and any(base in plain for base in self.base)


def _over(speedup: float) -> float:
    return 1 / speedup


def _captured(
    arch: str, base: tuple[str, ...], exact: float, pipelined: float, card: str | None = None
) -> Iterator[Target]:
    for ours, aim in ((c.CAPTURED, exact), (c.PIPELINED_CAPTURED, pipelined)):
        yield Target("cuda", arch, 0.2, 1, base, aim, ours=(ours,), card=card)


TARGETS = (
    Target("cpu", "wrn16_2", 0.2, 1, (c.REFERENCE,), _over(1.45)),
    Target("cpu", "wrn16_2", 0.6, 5, (c.REFERENCE,), _over(1.45)),
    Target("cpu", "wrn16_2", 0.6, 5, (c.NAIVE,), _over(1.65)),
    Target("cpu", "wrn16_2", 0.2, 1, (c.COMPILED,), _over(1.05)),
    Target("cpu", "wrn16_2", 0.2, 1, (c.VANILLA,), 0.90),
    Target("cpu", "wrn16_2", 0.2, 1, (c.VANILLA_CHANNELS_LAST,), 1.10),
    Target("cpu", "wrn16_2", 0.6, 5, (c.OURS_VANILLA,), 3.3),
    Target("cpu", "wrn16_2", 0.2, 1, (c.REFERENCE,), 1.0, "peak_memory"),
    # Graph against graph, then seconds of one card, then host-bound steps against such.
    *_captured("wrn28_10", c.CAPTURED_VANILLA, 1.05, 0.95),
    *_captured("resnet18", c.CAPTURED_VANILLA, 1.20, 1.05),
    *_captured("resnet50", c.CAPTURED_VANILLA, 1.05, 1.00),
    *_captured("wrn28_10", (), 14.3e-3, 13.0e-3, H100),
    *_captured("resnet18", (), 3.6e-3, 3.2e-3, H100),
    Target("cuda", "wrn28_10", 0.2, 1, c.EAGER_VANILLA, 2.2, ours=(c.OURS,)),
    Target("cuda", "wrn28_10", 0.2, 1, c.EAGER_VANILLA, 1.6, ours=(c.PIPELINED,)),
    # Older ones, most of them of a graph against steps that wait for their host.
    Target("cuda", "wrn28_10", 0.2, 1, (c.REFERENCE,), _over(1.5)),
    Target("cuda", "resnet18", 0.2, 1, (c.REFERENCE,), _over(2.5)),
    Target("cuda", "wrn16_4", 0.2, 1, (c.REFERENCE,), _over(2.5)),
    Target("cuda", "wrn28_10", 0.6, 5, (c.NAIVE,), _over(1.9)),
    Target("cuda", "resnet18", 0.6, 5, (c.NAIVE,), _over(3.0)),
    Target("cuda", "wrn28_10", 0.2, 1, (c.COMPILED,), _over(1.2)),
    Target("cuda", "wrn28_10", 0.2, 1, (c.VANILLA,), 0.90),
    Target("cuda", "resnet18", 0.2, 1, (c.VANILLA,), 0.50),
    Target("cuda", "wrn28_10", 0.2, 1, (c.VANILLA_CHANNELS_LAST,), 1.10),
    Target("cuda", "resnet18", 0.2, 1, (c.VANILLA_CHANNELS_LAST,), 0.50),
    Target("cuda", "wrn28_10", 0.6, 5, (c.OURS_VANILLA,), 3.3),
    Target("cuda", "wrn28_10", 0.2, 1, (c.REFERENCE,), 1.0, "peak_memory"),
    Target("cuda", "wrn28_10", 0.6, 5, (c.NAIVE,), 0.85, "peak_memory"),
)


@dataclass(frozen=True)
class Verdict:
    """Hold what became of a target.

    Attributes:
        ratio: ours over the base, or ours in seconds; None where no row says.
        ours: the contender behind it.
        base: the one that it is held against; None of seconds, and where several were not measured.
        card: where it was measured.
    """

    target: Target
    ratio: float | None
    ours: str
    base: str | None
    card: str | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether seconds were aimed at on another card."""
        return self.target.card is not None and self.card not in (None, self.target.card)

    def __str__(self) -> str:
        if self.ratio is None:
            return "unmeasured"
        if self.elsewhere:
            return "not comparable"
        return "reached" if self.ratio <= self.target.at_most else "missed"


def verdicts(device: str, measured: list[rows.Row]) -> list[Verdict]:
    """Compare every target of a device with rows as JSON, stamped."""
    compared = rows.comparable(measured)
    return [_verdict(target, compared) for target in TARGETS if target.device == device]


def least(names: Sequence[str], here: dict[str, rows.Row], what: Quantity) -> str | None:
    """Return which of these has the least of a quantity; None unless all were measured.

    The better of two layouts is not known as long as one of them is not.
    """
    if not names or not all(name in here and here[name][what] for name in names):
        return None
    return min(names, key=lambda name: float(here[name][what]))


def _verdict(target: Target, measured: list[rows.Row]) -> Verdict:
    """Take the first piece in which both were measured, else say that none was."""
    only = target.base[0] if len(target.base) == 1 else None
    unknown = target.ours[-1]  # what is captured is not promised where nothing was
    wanted = (target.device, target.arch, target.k, target.n)
    at = [row for row in measured if (row["device"], row["arch"], row["k"], row["n"]) == wanted]
    for piece in dict.fromkeys(row.get("piece", "") for row in at):
        here = {row["contender"]: row for row in at if row.get("piece", "") == piece}
        ours = next((n for n in target.ours if here.get(n, {}).get(target.quantity)), None)
        if ours is None:
            continue
        unknown, value = ours, float(here[ours][target.quantity])
        card = card_of(here[ours])
        if not target.base:
            return Verdict(target, value, ours, None, card)
        if base := least(target.base, here, target.quantity):
            return Verdict(target, value / float(here[base][target.quantity]), ours, base, card)
    return Verdict(target, None, unknown, only)


def card_of(row: rows.Row) -> str:
    """Return the name of the GPU that a row was measured on, or its whole machine."""
    machine = str(row["machine"])
    found = re.search(r"NVIDIA [^,]+|AMD Instinct [^,]+", machine)
    return found.group() if found else machine


def told(verdict: Verdict) -> str:
    """Write a target and its ratio as a clause that names layouts, and what is captured.

    Beside a captured step it is said of another one that it is not.
    """
    target, ratio = verdict.target, verdict.ratio
    who, aim = _who(verdict), f"{target.at_most:.2f}"
    if not target.base:
        takes = "" if ratio is None else f" takes {1e3 * ratio:.1f} ms on {verdict.card}"
        return f"{who}{takes}; target at most {1e3 * target.at_most:.1f} ms on {target.card}"
    base = _base(verdict)
    aim = f"{1 / target.at_most:.2f}" if target.is_speedup else f"at most {aim}"
    if ratio is None:
        what = "memory" if target.quantity == "peak_memory" else "time"
        unit = "times as fast" if target.is_speedup else f"of the {what}"
        return f"{who} against {base}; target {aim} {unit}"
    if target.quantity == "peak_memory":
        return f"{who} adds {ratio:.2f} of the memory of {base}; target {aim}"
    if target.is_speedup:
        return f"{who} is {1 / ratio:.2f} times as fast as {base}; target {aim}"
    unit = "times the time" if target.at_most > 2 else "of the time"
    return f"{who} takes {ratio:.2f} {unit} of {base}; target {aim}"


def _who(verdict: Verdict) -> str:
    """Name the step under test."""
    target, one = verdict.target, c.BY_NAME[verdict.ours]
    method = f"EntProp({target.k:g}, {target.n})"
    if one.base == c.PIPELINED_REFERENCE:
        method = f"EntProp pipelined({target.k:g})"
    captured = ", captured" if one.captured else ""
    return f"{target.arch}, {method} on our kernels{captured} ({c.layout_of(one.name)})"


def _base(verdict: Verdict) -> str:
    """Name what it is held against."""
    several = len(verdict.target.base) > 1
    first = verdict.base or verdict.target.base[0]
    name = c.without_layout(first) if verdict.base is None else c.with_layout(first)
    better = " in its better layout" if several else ""
    graphs = c.BY_NAME[verdict.ours].captured, c.BY_NAME[first].captured
    return f"{name}{better}{', not captured' if graphs == (True, False) else ''}"

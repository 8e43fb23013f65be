"""Write the tables of docs/gpu_time.md: what was counted, its bound, and what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import rows
from bench.roofline.cards import CARDS, LAUNCH, Card, bound, small_share
from bench.roofline.measured import PROFILED_CARD, launches, measured, profiled, step_called
from bench.roofline.op import KINDS
from bench.roofline.rows import NAME, counts_of
from bench.roofline.steps import PLAIN
from bench.rows import Row
from entprop_fast.lab.report.text import markdown_table

MS = 1e3
DEFAULT_CARD = CARDS["H100"]
Table = list[list[str]]


def section(page: Path) -> str:
    """Write the part of the page."""
    return section_of(rows.read(NAME), DEFAULT_CARD)


def section_of(counted: Sequence[Row], card: Card, *, aligned: bool = False) -> str:
    """Write all tables of these rows.

    Args:
        counted: rows of `bench.roofline.rows`.
        card: whose measurements stand beside its bound.
        aligned: for a terminal.
    """

    def table(lines: Table) -> str:
        return markdown_table(lines, aligned=aligned)

    parts = [
        "### Counted",
        table(_counted(counted)),
        "GB by class, and TFLOP of convolutions and products. "
        f"{_sizes(counted)}; bfloat16 autocast, channels_last, SGD with momentum. Counted by "
        f"`python -m bench.roofline` ({rows.origin(counted[0])}).",
        "### Bound",
        table(_bounds(counted)),
        _assumptions(counted),
        table(_cards()),
        _sources(),
        f"### Beside what was measured on an {card.name}",
        table(_measured(counted, card)),
        "In brackets the commit that was measured: older code. *Of the bound*: the bound's share "
        "of the captured step's time. *Launches*: counted, and what a profiler saw of the older "
        "code, cuDNN's own and memsets among them; *µs a launch*: the bound's. *Launches at "
        f"{1e6 * LAUNCH:g} µs*: what a step that is not captured takes at least if launches cost "
        "that, an assumption; the host's Python takes longer.",
    ]
    by_class = _by_class(counted)
    if card.name == PROFILED_CARD and len(by_class) > 1:
        parts += [
            "### Where the difference is",
            table(by_class),
            "Kernels' times by class from one profile of older code: its norms were slower, and "
            "sums and casts were more ([profile_h100.txt](step/profile_h100.txt)). The bounds are "
            "today's.",
        ]
    return "\n\n".join(parts)


def _sizes(counted: Sequence[Row]) -> str:
    sizes = {row["arch"]: f"{row['batch']}x3x{row['pixels']}x{row['pixels']}" for row in counted}
    return ", ".join(f"{arch} {size}" for arch, size in sizes.items())


def _plain(counted: Sequence[Row], row: Row) -> Row:
    """Return the row of plain training, PyTorch's own, of the same network."""
    same = (one for one in counted if one["arch"] == row["arch"])
    return next(one for one in same if one["step"] == PLAIN.name)


def _counted(counted: Sequence[Row]) -> Table:
    lines = [["network", "step", "TFLOP", "over vanilla", *KINDS, "launches"]]
    for row in counted:
        counts, plain = counts_of(row), counts_of(_plain(counted, row))
        gigabytes = [f"{counts.of(kind).bytes / 1e9:.2f}" for kind in KINDS]
        over = f"{counts.flop / plain.flop:.2f}"
        line = [row["arch"], row["step"], f"{counts.flop / 1e12:.2f}", over, *gigabytes]
        lines.append([*line, str(counts.launches)])
    return lines


def _bounds(counted: Sequence[Row]) -> Table:
    lines = [["network", "step", *(f"{name}, ms" for name in CARDS)]]
    lines[0] += [f"over vanilla, {DEFAULT_CARD.name}", f"largest part, {DEFAULT_CARD.name}"]
    for row in counted:
        counts, plain = counts_of(row), counts_of(_plain(counted, row))
        times = [f"{MS * bound(counts, card):.2f}" for card in CARDS.values()]
        whole = bound(counts, DEFAULT_CARD)
        over = whole / bound(plain, DEFAULT_CARD)
        parts = {kind: bound(counts.of(kind), DEFAULT_CARD) for kind in KINDS}
        most = max(parts, key=lambda kind: parts[kind])
        largest = f"{most}, {100 * parts[most] / whole:.0f} %"
        lines.append([row["arch"], row["step"], *times, f"{over:.2f}", largest])
    return lines


def _assumptions(counted: Sequence[Row]) -> str:
    shares = [small_share(counts_of(row), DEFAULT_CARD) for row in counted]
    return (
        "Assumed: each op takes the longer of FLOP at the vendor's dense bfloat16 peak and bytes "
        "at the vendor's memory bandwidth; ops follow each other without a gap, as in a CUDA "
        "graph; every op reads its tensors from memory and writes its results there. What the "
        f"second cache keeps from one op to the next comes off that: {100 * min(shares):.0f} to "
        f"{100 * max(shares):.0f} % of the steps' bytes are of ops that fit into an "
        f"{DEFAULT_CARD.name}'s. No figure is fitted to a measurement."
    )


def _cards() -> Table:
    lines = [["card", "bfloat16, TFLOP/s", "memory, TB/s", "multiprocessors", "L2, MB"]]
    for card in CARDS.values():
        figures = [f"{card.tflops:g}", f"{card.tbs:g}", str(card.multiprocessors), str(card.l2)]
        lines.append([card.name, *figures])
    return lines


def _sources() -> str:
    known = {
        card.name: " ".join(f"[{n}]({source})" for n, source in enumerate(card.sources, 1))
        for card in CARDS.values()
    }
    return f"NVIDIA's: {', '.join(f'{name} {links}' for name, links in known.items())}."


def _measured(counted: Sequence[Row], card: Card) -> Table:
    head = ["network", "step", "bound, ms", "captured, ms", "of the bound", "launches", "measured"]
    lines = [[*head, "µs a launch", f"launches at {1e6 * LAUNCH:g} µs, ms", "not captured, ms"]]
    for row in counted:
        counts, step = counts_of(row), step_called(row["step"])
        least = bound(counts, card)
        captured, eager = (measured(row, step, card, captured=one) for one in (True, False))
        share = "" if captured is None else f"{100 * least / captured['seconds']:.0f} %"
        seen = launches(row, step, card)
        lines.append(
            [
                *(row["arch"], step.name, f"{MS * least:.2f}", _time(captured), share),
                *(str(counts.launches), "" if seen is None else str(seen)),
                *(f"{1e6 * least / counts.launches:.1f}", f"{MS * LAUNCH * counts.launches:.2f}"),
                _time(eager),
            ]
        )
    return lines


def _time(row: Row | None) -> str:
    return "unmeasured" if row is None else f"{MS * row['seconds']:.1f} ({row['git'][:7]})"


def _by_class(counted: Sequence[Row]) -> Table:
    card = CARDS[PROFILED_CARD]
    lines = [["network", "step", "class", "bound, ms", "measured, ms", "of the bound", "apart, ms"]]
    known = profiled()
    for row in counted:
        times = known.get((row["arch"], row["step"]), {})
        for kind in (kind for kind in KINDS if kind in times):
            least, took = bound(counts_of(row).of(kind), card), times[kind]
            figures = [f"{MS * least:.2f}", f"{MS * took:.2f}", f"{100 * least / took:.0f} %"]
            lines.append([row["arch"], row["step"], kind, *figures, f"{MS * (took - least):.2f}"])
    return lines

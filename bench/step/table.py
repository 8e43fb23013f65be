"""Show the rows of steps as tables.

Wherever two steps are compared, the layout of both is named: plain training in PyTorch's default
layout and plain training in channels_last are two different things to be cheaper than.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import rows
from bench.pages import link
from bench.step import contenders as c
from bench.step.targets import least, told, verdicts
from bench.timing import low_to_high
from entprop_fast.lab.report.text import markdown_table

UNMEASURED = "unmeasured"
HEADLINE = ("wrn28_10", "resnet18", "resnet50")
K, N = 0.2, 1  # of the headline
Group = list[rows.Row]


@dataclass(frozen=True)
class Unit:
    """Hold a column of ratios: over the fastest of some contenders.

    Attributes:
        head: of the column.
        names: the contenders; the column stays empty unless all of them were measured.
        counted: the ratio is divided by what the paper counts, in rows of EntProp alone.
    """

    head: str
    names: tuple[str, ...]
    counted: bool = False

    def cell(self, row: rows.Row, group: Group) -> str:
        """Write the ratio of a row among its group."""
        here = {one["contender"]: one for one in group}
        name = least(self.names, here, "seconds")
        if name is None or (self.counted and c.BY_NAME[row["contender"]].is_vanilla):
            return ""
        ratio = row["seconds"] / here[name]["seconds"]
        return f"{ratio / row['paper_cost'] if self.counted else ratio:.2f}"


UNITS = {
    "cpu": (
        Unit("over vanilla, contiguous", (c.VANILLA,)),
        Unit("over vanilla, channels_last", (c.VANILLA_CHANNELS_LAST,)),
        Unit("over vanilla on our kernels, channels_last", (c.OURS_VANILLA,)),
    ),
    "cuda": (
        Unit("over vanilla captured, better layout", c.CAPTURED_VANILLA),
        Unit("over vanilla eager, better layout", c.EAGER_VANILLA),
        Unit("over vanilla captured and the paper's count", c.CAPTURED_VANILLA, counted=True),
    ),
}


def name_of(device: str) -> str:
    """Name the key under which the rows of a device are kept."""
    return f"step_{device}"


def picture_of(device: str) -> Path:
    """Return where the picture of a device lies, from the root."""
    return Path("docs/images") / f"{name_of(device)}.png"


def groups(measured: list[rows.Row]) -> Iterator[Group]:
    """Group the rows by setting, in their order."""
    found: dict[tuple[str, float, int, str], Group] = {}
    for row in rows.comparable(measured):
        key = row["arch"], row["k"], row["n"], row.get("piece", "")
        found.setdefault(key, []).append(row)
    yield from found.values()


def section(device: str, page: Path) -> str:
    """Write the whole part of a device: picture, targets, a table for each setting."""
    measured = rows.read(name_of(device))
    parts = [
        f"![Time of a step on {device}]({link(page, picture_of(device))})",
        _compared(device, measured),
        *map(table_of, groups(measured)),
        _method(measured),
    ]
    return "\n\n".join(parts)


def summary(device: str, page: Path) -> str:
    """Write the short part: targets, the layout of all that is compared, where it was run."""
    return summary_of(device, rows.read(name_of(device)))


def summary_of(device: str, measured: list[rows.Row]) -> str:
    """Write the short part of these rows."""
    return f"{_compared(device, measured)}\n\n{_method(measured)}"


def _compared(device: str, measured: list[rows.Row]) -> str:
    """Write the headline where there are graphs, and all targets."""
    lines = [[told(one), str(one)] for one in verdicts(device, measured)]
    parts = [markdown_table([["measured", ""], *lines])]
    if device == "cuda":
        parts = [headline(measured), *_uncaptured(measured), *parts]
    return "\n\n".join(parts)


def headline(measured: list[rows.Row]) -> str:
    """Write captured EntProp over captured vanilla in its better layout, for each network."""
    head = [f"network, EntProp({K:g}, {N})", "vanilla captured, better layout", "EntProp captured"]
    head += ["over vanilla", "EntProp pipelined captured", "over vanilla", "the paper counts"]
    lines, compared = [head], rows.comparable(measured)
    for arch in HEADLINE:
        at = [row for row in compared if (row["arch"], row["k"], row["n"]) == (arch, K, N)]
        here = {row["contender"]: row for row in at if not row.get("piece", "")}
        vanilla = least(c.CAPTURED_VANILLA, here, "seconds")
        cells = [arch, _time(c.CAPTURED_VANILLA, here, layout=True)]
        for name in (c.CAPTURED, c.PIPELINED_CAPTURED):
            ours = least((name,), here, "seconds")
            over = UNMEASURED
            if vanilla is not None and ours is not None:
                over = f"{here[ours]['seconds'] / here[vanilla]['seconds']:.2f}"
            cells += [_time((name,), here), over]
        lines.append([*cells, f"{1 + K * N:.2g}"])
    return markdown_table(lines)


def _time(names: tuple[str, ...], here: dict[str, rows.Row], *, layout: bool = False) -> str:
    """Write the least time of these, or why there is none."""
    name = least(names, here, "seconds")
    if name is None:
        refused = (here[one]["refused"] for one in names if one in here)
        return next((f"no time: {why}" for why in refused if why), UNMEASURED)
    text = f"{1e3 * here[name]['seconds']:.1f} ms"
    return f"{text} ({c.layout_of(name)})" if layout else text


def _uncaptured(measured: list[rows.Row]) -> list[str]:
    """Say so where graphs stand beside nothing but steps that wait for their host."""
    names = {row["contender"] for row in measured if row["seconds"] is not None}
    if not names or names & {*c.CAPTURED_VANILLA}:
        return []
    return [
        "**These rows are of older code, and no plain step was captured for them: a ratio of a "
        "captured step to a plain one sets a graph against steps that wait for their host. The "
        "targets that such a ratio reaches say little.**"
    ]


def table_of(group: Group, *, aligned: bool = False) -> str:
    """Write the table of a setting, under a line on what it is."""
    first = group[0]
    launches = any(row["launches"] is not None for row in group)
    title = (
        f"**{first['arch']}, {_size(first)}, EntProp({first['k']:g}, {first['n']})**"
        f"{', ' + first['piece'] if first.get('piece') else ''}; the paper counts "
        f"{first['paper_cost']:.2g} plain steps."
    )
    head = ["contender", "layout", "ms", "quartiles", "images/s"]
    head += [*(unit.head for unit in UNITS[first["device"]]), "peak MiB"]
    lines = [head + ["launches"] * launches]
    for row in group:
        cells = _cells(row, group)
        if launches:
            cells.append("" if row["launches"] is None else str(row["launches"]))
        lines.append(cells)
    return f"{title}\n\n{markdown_table(lines, aligned=aligned)}"


def _size(row: rows.Row) -> str:
    return f"{row['batch']}x3x{row['pixels']}x{row['pixels']}"


def _cells(row: rows.Row, group: Group) -> list[str]:
    names = [c.without_layout(row["contender"]), c.layout_of(row["contender"])]
    units = UNITS[row["device"]]
    if row["seconds"] is None:
        return [*names, f"no time: {row['refused']}", *[""] * (3 + len(units))]
    return [
        *names,
        f"{1e3 * row['seconds']:.1f}",
        low_to_high(row["quartiles"]),
        f"{row['batch'] / row['seconds']:.0f}",
        *(unit.cell(row, group) for unit in units),
        "" if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:.0f}",
    ]


def _method(measured: list[rows.Row]) -> str:
    first = measured[0]
    how = (
        "bfloat16 autocast for every contender"
        if first["device"] == "cuda"
        else "float32, one thread, a process for each contender"
    )
    origins = "; ".join(dict.fromkeys(map(rows.origin, measured)))
    return (
        "Medians of steps taken in turns, ratios of medians; "
        f"{how}. Vanilla is plain training with PyTorch's own norms, ReLUs and optimiser; a "
        "contender whose losses are not the reference's gets no time. Made by `pytest bench/step` "
        f"({origins})."
    )

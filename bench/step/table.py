"""Show the rows of steps as tables and a picture.

Wherever two steps are compared, the layout of both is named: plain training in PyTorch's default
layout and plain training in channels_last are two different things to be cheaper than.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import rows
from bench.pages import ROOT, link
from bench.step import contenders as c
from bench.step.results import Verdict, verdicts
from entprop_fast.lab.report.pictures import save_figure
from entprop_fast.lab.report.text import markdown_table

LAYOUT = {one.name: "channels_last" if one.channels_last else "contiguous" for one in c.CONTENDERS}
HEAD = [
    *("contender", "layout", "ms", "quartiles", "images/s", "over vanilla, contiguous"),
    *("over vanilla, channels_last", "over vanilla on our kernels, channels_last", "peak MiB"),
]
CAPTURED = "captured_cuda"  # rows of the captured step alone, later than those beside baselines
PROFILE = Path("docs/step/profile_h100.txt")
UNITS = (c.VANILLA, c.VANILLA_CHANNELS_LAST, c.OURS_VANILLA)
Group = list[rows.Row]


def name_of(device: str) -> str:
    """Name the key under which the rows of a device are kept."""
    return f"step_{device}"


def picture_of(device: str) -> Path:
    """Return where the picture of a device lies, from the root."""
    return Path("docs/images") / f"{name_of(device)}.png"


def with_layout(contender: str) -> str:
    """Write a contender's name, and the layout of its network and images."""
    return f"{contender.removesuffix(' channels_last')} ({LAYOUT[contender]})"


def told(verdict: Verdict) -> str:
    """Write a target and its ratio as a clause that names layouts, and what is captured.

    A contender beside a captured step is itself not captured, and the clause says so.
    """
    target, ratio = verdict.target, verdict.ratio
    captured = verdict.ours == c.CAPTURED
    who = f"{target.arch}, EntProp({target.k:g}, {target.n}) on our kernels"
    who += f"{', captured' if captured else ''} (channels_last)"
    base = f"{with_layout(target.base)}{', not captured' if captured else ''}"
    aim = f"{1 / target.at_most if target.is_speedup else target.at_most:.2f}"
    if not target.is_speedup:
        aim = f"at most {aim}"
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


def groups(measured: list[rows.Row]) -> Iterator[Group]:
    """Group the rows by setting, in their order."""
    found: dict[tuple[str, float, int], Group] = {}
    for row in measured:
        found.setdefault((row["arch"], row["k"], row["n"]), []).append(row)
    yield from found.values()


def section(device: str, page: Path) -> str:
    """Write the whole part of a device: picture, targets, a table for each setting."""
    measured = rows.read(name_of(device))
    parts = [
        f"![Time of a step on {device}]({link(page, picture_of(device))})",
        _targets(device, measured),
        *map(table_of, groups(measured)),
        _method(measured),
    ]
    return "\n\n".join(parts)


def summary(device: str, page: Path) -> str:
    """Write the short part: targets, the layout of all that is compared, where it was run."""
    return summary_of(device, rows.read(name_of(device)))


def summary_of(device: str, measured: list[rows.Row]) -> str:
    """Write the short part of these rows."""
    return f"{_targets(device, measured)}\n\n{_method(measured)}"


def captured(page: Path) -> str:
    """Say what a step takes as a CUDA graph, beside plain training's kernels."""
    measured = rows.read(CAPTURED)
    plain = plain_kernels((ROOT / PROFILE).read_text())
    first = measured[0]
    lines = [["network", "EntProp, captured", "plain training: its kernels alone", "ratio"]]
    lines[0].append("plain training, captured")
    for row in measured:
        seconds, kernels = row["seconds"], plain[row["arch"]]
        times = f"{1e3 * seconds:.1f} ms", f"{1e3 * kernels:.1f} ms"
        lines.append([row["arch"], *times, f"{seconds / kernels:.2f}", "unmeasured"])
    note = (
        f"{_size(first)}, EntProp({first['k']:g}, {first['n']}), bfloat16, channels_last. Plain "
        "training was never captured; its kernels alone, from "
        f"[the profile]({link(page, PROFILE)}) of the same day, are what a capture of it would "
        f"run, so that the ratio is an estimate. `bench/rows/{CAPTURED}.jsonl`, by hand from a "
        f"session's log: no command writes it yet ({rows.origin(first)})."
    )
    return f"{markdown_table(lines)}\n\n{note}"


def plain_kernels(profile: str) -> dict[str, float]:
    """Read the seconds of a plain step's kernels by network from the profile's text."""
    found = re.findall(rf"(\w+), {c.VANILLA_CHANNELS_LAST}: \d+ us a step, (\d+) us", profile)
    return {arch: 1e-6 * int(microseconds) for arch, microseconds in found}


def _size(row: rows.Row) -> str:
    return f"{row['batch']}x3x{row['pixels']}x{row['pixels']}"


def _targets(device: str, measured: list[rows.Row]) -> str:
    lines = [[told(one), str(one)] for one in verdicts(device, measured)]
    return markdown_table([["measured", ""], *lines])


def table_of(group: Group, *, aligned: bool = False) -> str:
    """Write the table of a setting, under a line on what it is."""
    first = group[0]
    launches = any(row["launches"] is not None for row in group)
    title = (
        f"**{first['arch']}, {_size(first)}, EntProp({first['k']:g}, {first['n']})**; the paper "
        f"counts {first['paper_cost']:.2g} plain steps."
    )
    lines = [HEAD + ["launches"] * launches]
    for row in group:
        cells = _cells(row)
        if launches:
            cells.append("" if row["launches"] is None else str(row["launches"]))
        lines.append(cells)
    return f"{title}\n\n{markdown_table(lines, aligned=aligned)}"


def _cells(row: rows.Row) -> list[str]:
    name = row["contender"]
    names = [name.removesuffix(" channels_last"), LAYOUT[name]]
    if row["seconds"] is None:
        return [*names, f"no time: {row['refused']}", *[""] * 6]
    low, high = (1e3 * seconds for seconds in row["quartiles"] or (math.nan, math.nan))
    costs = [f"{row['costs'][unit]:.2f}" if unit in row["costs"] else "" for unit in UNITS]
    return [
        *names,
        f"{1e3 * row['seconds']:.1f}",
        "" if math.isnan(low) else f"{low:.1f} to {high:.1f}",
        f"{row['batch'] / row['seconds']:.0f}",
        *costs,
        "" if row["peak_memory"] is None else f"{row['peak_memory'] / 2**20:.0f}",
    ]


def _method(measured: list[rows.Row]) -> str:
    first = measured[0]
    how = (
        "bfloat16 autocast for every contender"
        if first["device"] == "cuda"
        else "float32, one thread, a process for each contender"
    )
    return (
        "Medians of steps taken in turns, ratios of medians; "
        f"{how}. Vanilla is plain training with PyTorch's own norms, ReLUs and optimiser; a "
        "contender whose losses are not the reference's gets no time. Made by `pytest bench/step` "
        f"({rows.origin(first)})."
    )


def draw(device: str, path: Path) -> None:
    """Draw bars of time in steps of vanilla eager (contiguous), a panel for each network."""
    measured = rows.read(name_of(device))
    by_arch: dict[str, list[Group]] = {}
    for group in groups(measured):
        by_arch.setdefault(group[0]["arch"], []).append(group)
    heights = [sum(len(group) + 1.5 for group in of_arch) for of_arch in by_arch.values()]
    figure = Figure(figsize=(9, 0.19 * sum(heights) + 1.2 * len(heights)), layout="constrained")
    panels = figure.subplots(len(by_arch), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (arch, of_arch) in zip(panels, by_arch.items(), strict=True):
        _draw_panel(axes, of_arch)
        axes.set_title(f"{arch}, {of_arch[0][0]['device']}", fontsize=10)
    panels[-1].set_xlabel("time of a step, in steps of vanilla eager (contiguous)")
    save_figure(figure, path)


def _draw_panel(axes: Axes, of_arch: list[Group]) -> None:
    at, ticks, labels = 0.0, [], []
    for group in of_arch:
        setting = f"EntProp({group[0]['k']:g}, {group[0]['n']})"
        axes.text(0, at, f" {setting}, printed {group[0]['paper_cost']:.2g}", va="center", size=8)
        at += 1
        for row in group:
            cost = row["costs"].get(c.VANILLA)
            if cost is None:
                continue
            ours = row["contender"] in (c.OURS, c.CAPTURED, c.OURS_VANILLA, c.PIPELINED)
            axes.barh(at, cost, height=0.8, color="C1" if ours else "C0")
            axes.text(cost, at, f" {cost:.2f}", va="center", size=7)
            ticks.append(at)
            labels.append(with_layout(row["contender"]))
            at += 1
        at += 0.5
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.axvline(1, color="grey", linestyle=":", linewidth=1)
    axes.set_ylim(at - 0.5, -0.7)  # downwards, in the order of the table
    axes.margins(x=0.08)

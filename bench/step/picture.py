"""Draw the rows of steps as bars."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import rows
from bench.step import contenders as c
from bench.step.table import Group, groups, name_of
from bench.step.targets import least
from entprop_fast.lab.report.pictures import save_figure


def draw(device: str, path: Path) -> None:
    """Draw bars of time in steps of plain training, a panel for each network."""
    measured = rows.read(name_of(device))
    by_arch: dict[str, list[Group]] = {}
    for group in groups(measured):
        by_arch.setdefault(group[0]["arch"], []).append(group)
    heights = [sum(len(group) + 1.5 for group in of_arch) for of_arch in by_arch.values()]
    figure = Figure(figsize=(9, 0.19 * sum(heights) + 1.2 * len(heights)), layout="constrained")
    panels = figure.subplots(len(by_arch), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (arch, of_arch) in zip(panels, by_arch.items(), strict=True):
        _draw_panel(axes, of_arch, _unit(measured)[0])
        axes.set_title(f"{arch}, {of_arch[0][0]['device']}", fontsize=10)
    panels[-1].set_xlabel(f"time of a step, in steps of {_unit(measured)[1]}")
    save_figure(figure, path)


def _unit(measured: Group) -> tuple[tuple[str, ...], str]:
    """Return in whose steps all bars are drawn: captured ones where every setting has them."""
    for found in groups(measured):
        if least(c.CAPTURED_VANILLA, {row["contender"]: row for row in found}, "seconds") is None:
            return (c.VANILLA,), c.with_layout(c.VANILLA)
    return c.CAPTURED_VANILLA, f"{c.VANILLA_CAPTURED} in its better layout"


def _draw_panel(axes: Axes, of_arch: list[Group], unit: tuple[str, ...]) -> None:
    at, ticks, labels = 0.0, [], []
    for group in of_arch:
        setting = f"EntProp({group[0]['k']:g}, {group[0]['n']})"
        axes.text(0, at, f" {setting}, printed {group[0]['paper_cost']:.2g}", va="center", size=8)
        at += 1
        here = {row["contender"]: row for row in group}
        base = least(unit, here, "seconds")
        for row in group:
            if base is None or row["seconds"] is None:
                continue
            cost = row["seconds"] / here[base]["seconds"]
            color = "C1" if c.BY_NAME[row["contender"]].ours else "C0"
            axes.barh(at, cost, height=0.8, color=color)
            axes.text(cost, at, f" {cost:.2f}", va="center", size=7)
            ticks.append(at)
            labels.append(c.with_layout(row["contender"]))
            at += 1
        at += 0.5
    axes.set_yticks(ticks, labels, fontsize=7)
    axes.axvline(1, color="grey", linestyle=":", linewidth=1)
    axes.set_ylim(at - 0.5, -0.7)  # downwards, in the order of the table
    axes.margins(x=0.08)

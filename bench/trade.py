"""Show what a user trades: accuracy under shift against cost, from the rows of `bench.digits`."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from bench import digits, rows
from entprop_fast.lab.experiments.comparison.method_rows import MethodRow, against, method_rows
from entprop_fast.lab.report.pictures import save_figure
from entprop_fast.lab.report.tables import SCORES
from entprop_fast.lab.report.text import markdown_table

NAME = "trade"
PICTURE = Path("docs/images/trade.png")
SHOWN = ("vanilla", "MixUp", digits.OURS, "free training", "AdvProp")
LABEL_GAP = 1.15  # percent of RA between two labels at one cost


def section(_: Path) -> str:
    """Return five rows of the digits, and how all of them stand to EntProp."""
    table = method_rows(digits.runs(), digits.OURS)
    cells = [["method", *SCORES.values(), "cost"]]
    for name in SHOWN:
        row = next(one for one in table if one.name == name)
        assert row.cost is not None
        scores = (row.scores[metric] for metric in SCORES)
        cells.append([name, *(f"{one.mean:.1f}" for one in scores), f"{row.cost.mean:.0f}"])
    first = rows.read(digits.NAME)[0]
    return "\n\n".join(
        (
            markdown_table(cells),
            " ".join(against(table, digits.OURS))
            + f"\n<sub>{first['train_size']} training images of 8x8 pixels, {len(table[0].seeds)} "
            "seeds; differences are in Hscore; cost: passes over the training images. "
            f"`python -m bench.digits`, {rows.origin(first)}.</sub>",
        )
    )


def draw(path: Path) -> None:
    """Draw every method's RA against its cost, with its name beside it."""
    table = method_rows(digits.runs(), digits.BASELINE)
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set(
        xlabel="cost of training (passes over the training images)",
        ylabel="accuracy on corrupted images, RA (%)",
        xscale="log",
        xlim=(36, 640),
    )
    for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        which(NullFormatter())
    axes.set_xticks([50, 100, 200, 400])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3)
    columns: dict[int, list[MethodRow]] = {}
    for row in table:
        assert row.cost is not None
        ra, ours = row.scores["ra"], row.name == digits.OURS
        color = "C3" if ours else "0.35"
        axes.errorbar(
            row.cost.mean, ra.mean, ra.deviation, fmt="o", color=color, capsize=2, alpha=0.8
        )
        columns.setdefault(round(row.cost.mean), []).append(row)
    cheapest = min(columns)
    for cost, column in columns.items():
        _name(axes, column, left=cost == cheapest)
    save_figure(figure, path)


def _name(axes: Axes, column: list[MethodRow], *, left: bool) -> None:
    """Write the names of rows of one cost beside their points, far enough apart to be read."""
    lowest = -float("inf")
    for row in sorted(column, key=lambda row: row.scores["ra"].mean):
        assert row.cost is not None
        height = row.scores["ra"].mean
        lowest = max(height, lowest + LABEL_GAP)
        ours = row.name == digits.OURS
        axes.annotate(
            row.name,
            (row.cost.mean, height),
            (row.cost.mean * (0.93 if left else 1.08), lowest),
            ha="right" if left else "left",
            va="center",
            color="C3" if ours else "0.2",
            weight="bold" if ours else "normal",
            arrowprops={"arrowstyle": "-", "color": "0.7", "shrinkA": 0, "shrinkB": 4},
        )

"""Show what a user trades, from the rows of the first set of real images, else of the digits."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from bench import digits, real_images, real_images_table, rows
from bench.real_images_table import UNMEASURED
from entprop_fast.lab.experiments.comparison.method_rows import MethodRow, against, method_rows
from entprop_fast.lab.report.pictures import save_figure
from entprop_fast.lab.report.tables import SCORES
from entprop_fast.lab.report.text import markdown_table

NAME = "trade"
PICTURE = Path("docs/images/trade.png")
# Of the digits.
SHOWN: tuple[str, ...] = ("vanilla", "MixUp", digits.OURS, "free training", "AdvProp")
OURS = digits.OURS
LABEL_GAP = 0.033  # of what RA spans, between two labels at one place
EQUAL_COST = 1.5  # at most so many times the lowest: cost tells nothing


def section(_: Path) -> str:
    """Return five rows, and how all of them stand to EntProp."""
    name = real_images_table.first_measured()
    if name is None:
        runs, shown, images = digits.runs(), SHOWN, "training images of 8x8 pixels"
        command, origin = "bench.digits", rows.origin(rows.read(digits.NAME)[0])
    else:
        runs = real_images.read(name)
        shown, images = real_images_table.shown(runs), f"training images of {name}, equal passes"
        command, origin = f"bench.{name}", real_images_table.origins(runs)
    table = method_rows(runs, OURS)
    by_name = {row.name: row for row in table}
    cells = [["method", *SCORES.values(), "cost"]]
    for one in shown:
        row = by_name.get(one)
        if row is None or row.cost is None:
            cells.append([one, UNMEASURED, *["–"] * len(SCORES)])
            continue
        scores = (row.scores[metric] for metric in SCORES)
        cells.append([one, *(f"{score.mean:.1f}" for score in scores), f"{row.cost.mean:.0f}"])
    first = next(iter(runs[OURS].values()))
    return "\n\n".join(
        (
            markdown_table(cells),
            " ".join(against(table, OURS))
            + f"\n<sub>{first['train_size']} {images}, {len(runs[OURS])} seeds; differences are in "
            f"Hscore; cost: passes over the training images. `python -m {command}`, "
            f"{origin}.</sub>",
        )
    )


def draw(path: Path) -> None:
    """Draw every method's RA against its cost, or against SA where costs are equal, with names."""
    name = real_images_table.first_measured()
    runs = digits.runs() if name is None else real_images.read(name)
    table = [row for row in method_rows(runs, digits.BASELINE) if row.cost is not None]
    costs = [row.cost.mean for row in table if row.cost is not None]
    equal = max(costs) <= EQUAL_COST * min(costs)
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.set(ylabel="accuracy on corrupted images, RA (%)")
    if equal:
        axes.set(xlabel="accuracy on clean images, SA (%)")
        axes.margins(x=0.25)
    else:
        axes.set(xlabel="cost of training (passes over the training images)", xscale="log")
        axes.set_xlim(0.62 * min(costs), 1.6 * max(costs))
        for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            which(NullFormatter())
        axes.set_xticks([tick for tick in (25, 50, 100, 200, 400, 800) if tick <= 1.6 * max(costs)])
        axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.grid(alpha=0.3)
    columns: dict[float, list[MethodRow]] = {}
    for row in table:
        assert row.cost is not None
        x = row.scores["sa"].mean if equal else row.cost.mean
        ra, color = row.scores["ra"], "C3" if OURS in row.name else "0.35"
        axes.errorbar(x, ra.mean, ra.deviation, fmt="o", color=color, capsize=2, alpha=0.8)
        columns.setdefault(0 if equal else round(x), []).append(row)
    low, high = axes.get_ylim()
    for place in sorted(columns):
        _name(
            axes,
            columns[place],
            LABEL_GAP * (high - low),
            equal,
            left=not equal and place == min(columns),
        )
    save_figure(figure, path)


def _name(axes: Axes, column: list[MethodRow], gap: float, equal: bool, *, left: bool) -> None:
    """Write the names of rows of one place beside their points, far enough apart to be read."""
    lowest = -float("inf")
    for row in sorted(column, key=lambda row: row.scores["ra"].mean):
        assert row.cost is not None
        x = row.scores["sa"].mean if equal else row.cost.mean
        height = row.scores["ra"].mean
        lowest = max(height, lowest + gap)
        ours = OURS in row.name
        beside = x + 0.15 if equal else x * (0.93 if left else 1.08)
        axes.annotate(
            row.name,
            (x, height),
            (beside, lowest),
            ha="right" if left else "left",
            va="center",
            color="C3" if ours else "0.2",
            weight="bold" if row.name == OURS else "normal",
            arrowprops={"arrowstyle": "-", "color": "0.7", "shrinkA": 0, "shrinkB": 4},
        )

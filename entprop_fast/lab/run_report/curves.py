"""Draw the curves of runs: one quantity a panel, one line a run, or its parts for a single run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from entprop_fast.lab.run_report.inline_svg import (
    ALERT,
    LINE,
    MUTED,
    SERIES,
    inline_svg,
    series_color,
)
from entprop_fast.lab.run_report.read_run import Run

Drifts = Mapping[str, Mapping[str, float]]

_SIZE = (4.7, 2.7)  # inches of 72 units: as wide as a phone, so that its text is not shrunk there
_TEXT = 11  # units high
_DOTTED = 25  # points of the longest line up to which each has a dot
_DASHES = ("", "5 2.5", "1.5 2", "7 2 1.5 2")  # a picture in grey tells lines apart, too


@dataclass(frozen=True, kw_only=True)
class Line:
    """Name a line of a panel; `place` decides its colour and its dashes."""

    name: str
    place: int

    @property
    def color(self) -> int:
        """Return which of the page's colours it has."""
        return self.place % SERIES

    @property
    def dashes(self) -> str:
        """Return its dashes as SVG has them."""
        return _DASHES[(self.place + self.place // SERIES) % len(_DASHES)]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Hold a picture with its heading and its legend, empty where a line needs no name."""

    title: str
    picture: Markup
    lines: list[Line]


# Heading, and the columns that it shows of a single run, by what a line is called.
_ONE_RUN: dict[str, dict[str, str]] = {
    "Accuracy (%)": {"sa": "test (SA)", "train_accuracy": "training images"},
    "Loss": {"loss": "main", "aux_loss": "auxiliary"},
    "Entropy (nats)": {
        "entropy_selected": "selected rows",
        "entropy_unselected": "unselected rows",
    },
    "Learning rate": {"lr": ""},
}
_SEVERAL_RUNS = {
    "SA (%)": "sa",
    "Accuracy on training images (%)": "train_accuracy",
    "Main loss": "loss",
    "Auxiliary loss": "aux_loss",
    "Entropy of selected rows (nats)": "entropy_selected",
    "Learning rate": "lr",
}


def training_panels(runs: Sequence[Run]) -> list[Panel]:
    """Draw losses, accuracies, entropies and learning rates over the epochs."""
    if len(runs) == 1:
        marks = sorted({epoch for epoch, _ in runs[0].signatures})
        wanted = {
            title: {label: _points(runs[0], "epoch", name) for name, label in names.items()}
            for title, names in _ONE_RUN.items()
        }
        return list(_panels(wanted, "epoch", marks))
    return list(_panels(_by_run(runs, "epoch", _SEVERAL_RUNS), "epoch"))


def speed_panels(runs: Sequence[Run]) -> list[Panel]:
    """Draw images per second over the epochs, and SA over the time that it took."""
    speed = _by_run(runs, "epoch", {"Images per second": "images_per_second"})
    gained = _by_run(runs, "seconds", {"SA (%) by time": "sa"})
    return [*_panels(speed, "epoch"), *_panels(gained, "seconds since the run began")]


def drift_panels(found: Mapping[str, Drifts], kinds: Sequence[str]) -> list[Panel]:
    """Draw how far the halves of the norms lie apart, layer by layer, by run."""
    wanted: dict[str, dict[str, list[tuple[float, float]]]] = {
        kind.capitalize(): {
            run if len(found) > 1 else "": [
                (place, layer[kind])
                for place, layer in enumerate(layers.values(), 1)
                if kind in layer
            ]
            for run, layers in found.items()
        }
        for kind in kinds
    }
    return list(_panels(wanted, "norm, from the input to the output"))


def _by_run(
    runs: Sequence[Run], x: str, columns: Mapping[str, str]
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    return {
        title: {run.name if len(runs) > 1 else "": _points(run, x, y) for run in runs}
        for title, y in columns.items()
    }


def _points(run: Run, x: str, y: str) -> list[tuple[float, float]]:
    return [(row[x], row[y]) for row in run.rows if x in row and y in row]


def _panels(
    wanted: Mapping[str, Mapping[str, list[tuple[float, float]]]],
    along: str,
    marks: Sequence[float] = (),
) -> Iterator[Panel]:
    """Draw those panels that have a line with anything but zeros."""
    for title, lines in wanted.items():
        drawn = {
            Line(name=name, place=place): points
            for place, (name, points) in enumerate(lines.items())
            if any(y for _, y in points)
        }
        if drawn:
            label = f"{title}, by {along}"
            named = [line for line in drawn if line.name]
            yield Panel(title=title, picture=_draw(drawn, label, along, marks), lines=named)


def _draw(
    lines: Mapping[Line, list[tuple[float, float]]],
    label: str,
    along: str,
    marks: Sequence[float],
) -> Markup:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    longest = max(map(len, lines.values()))
    for line, points in lines.items():
        dashes = [float(one) for one in line.dashes.split()]
        axes.plot(
            *zip(*points, strict=True),
            color=series_color(line.place),
            linestyle=(0, dashes) if dashes else "-",
            linewidth=1.8,
            marker="o" if longest <= _DOTTED or len(points) == 1 else None,
            markersize=3.5,
        )
    for mark in marks:
        axes.axvline(mark, color=ALERT, linestyle=":", linewidth=1.2)
    _style(axes, along)
    return inline_svg(figure, label, salt=label)


def _style(axes: Axes, along: str) -> None:
    """Draw little but the lines."""
    axes.set_xlabel(along, color=MUTED, fontsize=_TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.tick_params(colors=MUTED, labelsize=_TEXT, length=0)
    axes.grid(color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.margins(x=0.02)

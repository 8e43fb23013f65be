"""Draw pictures of a run, without a display and without matplotlib's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from entprop_fast.lab.files import write_atomically
from entprop_fast.lab.report.text import picture, plain

_PANELS: dict[str, dict[str, str]] = {
    "loss": {"loss": "main", "aux_loss": "auxiliary"},
    "entropy (nats)": {"entropy_selected": "selected", "entropy_unselected": "unselected"},
    "accuracy (%)": {"sa": "test (SA)", "train_accuracy": "training images"},
    "learning rate": {"lr": "lr"},
}


_DOTTED = 20  # epochs up to which each one is a dot on its curve
_NAME = 16  # characters of a class's name


class Classes(NamedTuple):
    """Name what an example is, and what the network takes it and its perturbed form for."""

    true: str
    predicted: str
    perturbed: str


def count_epochs(axes: Axes) -> None:
    """Let an axis of epochs show whole ones."""
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def draw_curves(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw training curves: losses, entropies, accuracies and learning rate over the epochs."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    marker = "." if len(rows) < _DOTTED else None  # a single epoch has no line
    for axes, (title, curves) in zip(figure.subplots(2, 2).flat, _PANELS.items(), strict=True):
        for name, label in curves.items():
            values = [row[name] for row in rows]
            if any(math.isfinite(value) and value for value in values):  # the method has it
                axes.plot(epochs, values, label=label, marker=marker)
        axes.set(title=title)
        count_epochs(axes)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    _mark_signatures(figure.axes[0], rows)
    save_figure(figure, path)


def draw_heat_map(
    path: Path,
    percent: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    *,
    title: str,
    xlabel: str = "",
) -> None:
    """Draw percentages as a heat map with its numbers, a row for each key.

    Args:
        path: of the PNG.
        percent: row name to its values, one for each column.
        columns: their names.
        title: of the picture.
        xlabel: what the columns are.
    """
    values = np.array(list(percent.values()))  # [rows, columns]
    # Inches: a column has room for its name, and so has the margin for the rows' names.
    column, margin = (0.09 * max(map(len, names)) for names in (columns, percent))
    width = max(6.4, max(0.7, column) * len(columns) + margin + 1.6)
    figure = Figure(figsize=(width, 0.42 * len(values) + 1.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, vmin=0, vmax=100, cmap="viridis", aspect="auto")
    axes.set_yticks(range(len(values)), list(map(picture, percent)))
    axes.set_xticks(range(len(columns)), list(map(picture, columns)))
    axes.set(xlabel=picture(xlabel), title=picture(title))
    for (row, column), value in np.ndenumerate(values):
        color = "black" if value > 60 else "white"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color)
    figure.colorbar(image, ax=axes)
    save_figure(figure, path)


def draw_examples(
    path: Path,
    images: Tensor,
    perturbed: Tensor,
    entropy: Sequence[float],
    perturbed_entropy: Sequence[float],
    classes: Sequence[Classes] | None = None,
) -> None:
    """Draw selected images, the same perturbed, and the amplified difference between them.

    Args:
        path: of the PNG.
        images: ``[N, C, H, W]`` in [0, 1].
        perturbed: the same after the last perturbation.
        entropy: of the prediction for each image, in nats.
        perturbed_entropy: of the prediction for each perturbed image.
        classes: of each image; None leaves them out.
    """
    factor = amplification(images, perturbed)
    amplified = 0.5 + factor * (perturbed - images)
    above, below = list(_nats(entropy)), list(_nats(perturbed_entropy))
    for place, one in enumerate(classes or ()):
        above[place] = f"is {_short(one.true)}\ntaken for {_short(one.predicted)}\n{above[place]}"
        below[place] = f"taken for {_short(one.perturbed)}\n{below[place]}"
    width = 1.3 if classes is None else 1.7  # inches, for the names
    figure = Figure(figsize=(width * len(images) + 0.6, 5.6), layout="constrained")
    rows = (
        ("selected", images, above),
        ("perturbed", perturbed, below),
        (f"difference × {factor:g}", amplified, [""] * len(images)),
    )
    for axes_row, (label, shown, titles) in zip(
        figure.subplots(3, len(images), squeeze=False), rows, strict=True
    ):
        for axes, image, title in zip(axes_row, shown, titles, strict=True):
            _show(axes, image)
            axes.set_title(title, fontsize=9, parse_math=False)
        axes_row[0].set_ylabel(label)
    save_figure(figure, path)


def amplification(images: Tensor, perturbed: Tensor) -> float:
    """Find the factor that shows the largest difference as black or white, on grey; 1 for none."""
    largest = float((perturbed - images).abs().max())
    if largest == 0:
        return 1.0
    factor = 0.5 / largest
    return float(math.floor(factor)) if factor >= 1 else factor


def _nats(values: Sequence[float]) -> Iterator[str]:
    return (f"{value:.2f} nats" for value in values)


def _short(name: str) -> str:
    name = plain(name)
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _show(axes: Axes, image: Tensor) -> None:
    """Show one image ``[C, H, W]``; other than 3 channels are shown as their mean, in grey."""
    if image.shape[0] == 3:
        axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
    else:
        axes.imshow(image.mean(dim=0).clamp(0, 1).numpy(), vmin=0, vmax=1, cmap="gray")
    axes.set_xticks([])
    axes.set_yticks([])


def _mark_signatures(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        for name in row.get("signatures", ()):
            axes.axvline(row["epoch"], color="crimson", linestyle=":")
            axes.text(
                row["epoch"], axes.get_ylim()[1], name, color="crimson", rotation=90, va="top"
            )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, atomically."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomically(path, buffer.getvalue())

"""Pictures of a run, drawn without a display and without matplotlib's global state."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from entprop_fast.checkpoint import write_atomically
from entprop_fast.text import picture

_PANELS: dict[str, dict[str, str]] = {
    "loss": {"loss": "main", "aux_loss": "auxiliary"},
    "entropy (nats)": {"entropy_selected": "selected", "entropy_unselected": "unselected"},
    "accuracy (%)": {"sa": "test (SA)", "train_accuracy": "training images"},
    "learning rate": {"lr": "lr"},
}


def draw_curves(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Training curves: losses, entropies, accuracies and learning rate over the epochs."""
    figure = Figure(figsize=(10, 6.4), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for axes, (title, curves) in zip(figure.subplots(2, 2).flat, _PANELS.items(), strict=True):
        for name, label in curves.items():
            values = [row[name] for row in rows]
            if any(math.isfinite(value) and value for value in values):  # the method has it
                axes.plot(epochs, values, label=label)
        axes.set(title=title, xlabel="epoch")
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
    """Percentages as a heat map with its numbers, a row for each key.

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
) -> None:
    """Selected images above, the same perturbed below, each with its entropy.

    Args:
        path: of the PNG.
        images: ``[N, C, H, W]`` in [0, 1].
        perturbed: the same after the last perturbation.
        entropy: of the prediction for each image, in nats.
        perturbed_entropy: of the prediction for each perturbed image.
    """
    figure = Figure(figsize=(1.3 * len(images) + 0.6, 3.4), layout="constrained")
    grid = figure.subplots(2, len(images), squeeze=False)
    rows = (("selected", images, entropy), ("perturbed", perturbed, perturbed_entropy))
    for axes_row, (label, pictures, nats) in zip(grid, rows, strict=True):
        for axes, image, value in zip(axes_row, pictures, nats, strict=True):
            _show(axes, image)
            axes.set_title(f"{value:.2f} nats", fontsize=9)
        axes_row[0].set_ylabel(label)
    save_figure(figure, path)


def _show(axes: Axes, image: Tensor) -> None:
    """One image ``[C, H, W]``; other than 3 channels are shown as their mean, in grey."""
    if image.shape[0] == 3:
        axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy())
    else:
        axes.imshow(image.mean(dim=0).numpy(), vmin=0, vmax=1, cmap="gray")
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

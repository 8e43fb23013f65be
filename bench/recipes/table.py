"""Make the rows of the recipes, and their table."""

from __future__ import annotations

from pathlib import Path

from bench import rows
from bench.recipes.cases import ROUNDS, STEPS, Case
from bench.rows import Row
from entprop_fast.lab.report.text import markdown_table
from entprop_fast.lab.training.recipe import data_set_recipes

DEVICES = ("cpu", "cuda")
PART = "recipes"  # of the page
MEASURED: list[Row] = []
HEAD = [
    *("recipe", "network", "images, pixels", "images a step", "images/s"),
    *("epochs x training images", "hours, extrapolated"),
]


def name_of(device: str) -> str:
    """Return the name under which the rows of a device are kept."""
    return f"recipes_{device}"


def row_of(
    case: Case,
    seconds: float,
    quartiles: tuple[float, float] | None = None,
    peak_memory: int | None = None,
) -> Row:
    """Make the row of a case whose step took so long, median and quartiles, and so many bytes."""
    config = case.config
    images_per_second = config.batch_size / seconds
    return {
        "recipe": case.name,
        "device": case.device,
        "arch": config.arch,
        "method": config.method,
        "amp": "bf16" if case.device == "cuda" else "none",  # what auto is there
        "pixels": case.pixels,
        "classes": case.classes,
        "batch": config.batch_size,
        "recipe_batch": case.recipe_batch,
        "epochs": config.epochs,
        "train_images": case.train_images,
        "seconds": seconds,
        "quartiles": quartiles,
        "peak_memory": peak_memory,
        "images_per_second": images_per_second,
        "hours": case.hours(images_per_second),
    }


def is_whole() -> bool:
    """Return whether every recipe was measured; a part does not replace the committed rows."""
    return {row["recipe"] for row in MEASURED} == set(data_set_recipes())


def table_of(found: list[Row]) -> str:
    """Write the table in Markdown."""
    lines = [HEAD]
    for row in found:
        own = row["batch"] == row["recipe_batch"]
        speed, hours = row["images_per_second"], row["hours"]
        cells = [
            f"`{row['recipe']}`",
            row["arch"],
            str(row["pixels"]),
            f"{row['batch']}" if own else f"{row['batch']} (the recipe's: {row['recipe_batch']})",
            f"{speed:.0f}" if speed >= 10 else f"{speed:.1f}",
            f"{row['epochs']} x {row['train_images']:,}",
            f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else f"{hours:.1g}",
        ]
        lines.append(cells)
    return markdown_table(lines, escaped=True)


def section(page: Path) -> str:
    """Write a table for every device that has committed rows."""
    parts = []
    for device in DEVICES:
        try:
            found = rows.read(name_of(device))
        except FileNotFoundError:
            continue
        first = found[0]
        in_a_row = "" if STEPS[device] == 1 else f" of {STEPS[device]} in a row"
        parts += [
            table_of(found),
            f"Measured: a step of the recipe's method ({first['method']}, amp {first['amp']}) on "
            f"random images, median of {ROUNDS} rounds{in_a_row}. Extrapolated: epochs x training "
            "images over images/s, which is training alone, as if images were read as fast as they "
            "are used; evaluations, reading and another batch size change it. Made by "
            f"`pytest bench/recipes` ({rows.origin(first)}).",
        ]
    return "\n\n".join(parts)

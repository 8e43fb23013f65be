"""Make the table of fused steps."""

from __future__ import annotations

from pathlib import Path

from bench import rows
from bench.fusion.steps import CASES
from bench.rows import Row
from entprop_fast.lab.report.text import markdown_table

NAME = "fusion_cpu"  # of rows, and of the part of the page
MEASURED: list[Row] = []


def name_of(device: str) -> str:
    """Return the name under which the rows of a device are kept."""
    return f"fusion_{device}"


def is_whole() -> bool:
    """Return whether every case was measured."""
    return {row["case"] for row in MEASURED} == {str(case) for case in CASES}


def table_of(found: list[Row]) -> str:
    """Write the table in Markdown."""
    lines = [["network, batch", "norms fused", "as it is, ms", "fused, ms", "fused / as it is"]]
    for row in found:
        times = [f"{1000 * row['seconds'][name]:.1f}" for name in ("plain", "fused")]
        case, count = f"`{row['case']}`", str(row["fused_norms"])
        lines.append([case, count, *times, f"{row['ratio']:.2f}"])
    return markdown_table(lines, escaped=True)


def section(page: Path) -> str:
    """Write the part of the page."""
    found = rows.read(NAME)
    return (
        f"{table_of(found)}\n\nA step of EntProp, channels_last, one thread; medians of "
        f"{found[0]['rounds']} rounds in turns. Made by `pytest bench/fusion` "
        f"({rows.origin(found[0])})."
    )

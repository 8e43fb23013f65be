"""Make the rows of the corruptions, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench import rows
from bench.corruptions.cases import CASES, SIZES, Size
from bench.rows import Row
from bench.timing import verdict
from entprop_fast.lab.report.text import markdown_table

NAME = "corruptions_cpu"
PART = "corruptions"  # of the page
ALL = "all 15 x 5"
HEAD = ["kind", "pixels", "images", "ours, s", "image by image, s", "times faster", "target", ""]


@dataclass(frozen=True)
class Measured:
    """Hold CPU seconds an image for all five severities of a kind, of both chains."""

    size: Size
    kind: str
    ours: float
    theirs: float


MEASURED: list[Measured] = []


def is_whole() -> bool:
    """Return whether every case was measured; a part does not replace the committed rows."""
    return len(MEASURED) == len(CASES)


def rows_of(measured: list[Measured]) -> list[Row]:
    """Make a row for each kind and size, and their sums; times are scaled to all images."""
    found = []
    for size in SIZES:
        kinds = [one for one in measured if one.size == size]
        if not kinds:
            continue
        total = Measured(
            size, ALL, sum(one.ours for one in kinds), sum(one.theirs for one in kinds)
        )
        for one in (*kinds, total):
            ratio = one.theirs / one.ours
            target = size.target if one is total else None
            found.append(
                {
                    "side": size.side,
                    "scale": size.scale,
                    "kind": one.kind,
                    "seconds": size.wanted * one.ours,
                    "seconds_per_image_chain": size.wanted * one.theirs,
                    "images": size.wanted,
                    "measured": size.ours,
                    "measured_per_image_chain": size.theirs,
                    "ratio": ratio,
                    "target": target,
                    "verdict": verdict(ratio, target),
                }
            )
    return found


def table_of(found: list[Row]) -> str:
    """Write the table in Markdown."""
    lines = [HEAD]
    for row in found:
        target = "" if row["target"] is None else f"{row['target']:g}"
        bold = "**" if row["kind"] == ALL else ""
        cells = [
            row["kind"],
            str(row["side"]),
            str(row["images"]),
            f"{row['seconds']:.1f}",
            f"{row['seconds_per_image_chain']:.1f}",
            f"{bold}{row['ratio']:.1f}{bold}",
            target,
            row["verdict"],
        ]
        lines.append(cells)
    return markdown_table(lines, escaped=True)


def section(page: Path) -> str:
    """Write the table of the committed rows, and what is slower or missed."""
    found = rows.comparable(rows.read(NAME))
    first = found[0]
    fractions = "; ".join(
        f"at {size.side} pixels {size.ours} images of ours and {size.theirs} of theirs"
        for size in SIZES
    )
    slower = [f"{row['kind']} at {row['side']}" for row in found if row["verdict"] == "slower"]
    missed = [f"{row['kind']} at {row['side']}" for row in found if row["verdict"] == "missed"]
    without = ", ".join(f"{_without_glass(found, size):.1f} at {size.side}" for size in SIZES)
    return table_of(found) + (
        "\n\nCPU seconds for all five severities of so many images, one thread, bytes to bytes. "
        f"Scaled from fewer images, interleaved, medians: {fractions}. The other chain is NumPy, "
        "SciPy and Pillow called image by image (bench/corruptions/per_image.py), without "
        "scikit-image's own checks; for pixelate and JPEG Pillow alone, as published. "
        f"Made by `pytest bench/corruptions` ({rows.origin(first)}).\n\n"
        "Glass blur is a Python loop over pixels in the other chain, as published; without it "
        f"all others together are this many times faster: {without} pixels. "
        f"Slower than image by image: {', '.join(slower) or 'nothing'}. "
        f"Targets missed: {', '.join(missed) or 'none'}."
    )


def _without_glass(found: list[Row], size: Size) -> float:
    """Return the ratio of all other kinds together."""
    others = [
        row for row in found if row["side"] == size.side and row["kind"] not in (ALL, "glass_blur")
    ]
    theirs, ours = (
        sum(row[name] for row in others) for name in ("seconds_per_image_chain", "seconds")
    )
    return float(theirs / ours)

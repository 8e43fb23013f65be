"""Escape text that users chose (names of runs, files, classes) where characters mean something.

Each kind of place has one function, and everything of that kind goes through it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

_MARKDOWN = re.compile(r"[\\`*|\[\]]|<(?=[A-Za-z/!?])")  # "p < .01" starts no HTML


def plain(text: str) -> str:
    """Keep to one line of a terminal: write line breaks and what moves its cursor as escapes."""
    return "".join(one.encode("unicode_escape").decode() if _controls(one) else one for one in text)


def markdown(text: str) -> str:
    """Escape what GitHub's Markdown would not show as it is, in a table's cell too."""
    return _MARKDOWN.sub(lambda found: "\\" + found[0], _utf8(plain(text)))


def markdown_table(
    rows: Sequence[Sequence[str]], *, aligned: bool = False, escaped: bool = False
) -> str:
    """Write a table whose first row is its header.

    Args:
        rows: cells of text.
        aligned: make all cells of a column equally wide, for a terminal.
        escaped: the cells are Markdown already.
    """
    cells = [[cell if escaped else markdown(cell) for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) if aligned else 0 for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * (width or 3) for width in widths])
    padded = ([one.ljust(w) for one, w in zip(row, widths, strict=True)] for row in cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def markdown_records(lines: Sequence[Mapping[str, str]], *, aligned: bool = False) -> str:
    """Write a table with a column for each key of the first line."""
    names = list(lines[0])
    rows = [names, *([line[name] for name in names] for line in lines)]
    return markdown_table(rows, aligned=aligned)


def picture(text: str) -> str:
    """Escape for a picture, where two dollar signs enclose mathematics, ``_name`` hides a label."""
    lines = "\n".join(plain(line) for line in text.split("\n")).replace("$", r"\$")
    lines = _utf8(lines)
    return f" {lines}" if lines.startswith("_") else lines


def _controls(one: str) -> bool:
    return unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp")


def _utf8(text: str) -> str:
    """Escape what is not UTF-8 in a file's name: text could not be written with it."""
    return text.encode(errors="backslashreplace").decode()

"""Read a report's HTML back: its tables, texts, links and what it would load."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

_VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Hold what a page says.

    Attributes:
        tables: by caption, rows of cells, the first one the headings.
        words: all text that is shown, in order.
        tags: of all elements, with their attributes.
        left_open: elements that were opened and not closed, or the other way round.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.left_open: list[str] = []
        self._open: list[str] = []
        self._texts: list[str] = []
        self._rows: list[list[str]] = []
        self._caption = ""
        self.source = path.read_bytes().decode()
        self.feed(self.source)
        self.left_open += self._open

    @property
    def words(self) -> str:
        return " ".join(" ".join(self._texts).split())

    def cells(self, caption: str) -> dict[str, dict[str, str]]:
        """Return a table as row to column to cell."""
        head, *rows = self.tables[caption]
        return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.left_open.append(tag)
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self._texts.append(data)
        if self._open and self._open[-1] == "caption":
            self._caption += data
        elif {"td", "th"} & set(self._open) and "mark" not in data:
            self._rows[-1][-1] += data.strip()

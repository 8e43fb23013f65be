"""Find and rewrite the parts of README.md and docs/ that are made from committed rows.

A part stands between two markers, in whichever page holds them: moving both moves the part.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def markers(name: str) -> tuple[str, str]:
    """Return the lines between which the part called `name` stands."""
    return f"<!-- {name}: written by `python -m bench.report` -->\n", f"\n<!-- /{name} -->"


def page_of(name: str) -> Path:
    """Return the page that holds the part called `name`, from the root.

    Raises:
        SystemExit: no page holds its markers, or two do.
    """
    begin, end = markers(name)
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [page for page in pages for _ in range(page.read_text().count(begin))]
    if len(found) != 1 or end not in found[0].read_text().partition(begin)[2]:
        where = ", ".join(str(page.relative_to(ROOT)) for page in found) or "no page"
        raise SystemExit(f"{where}: expected {begin.strip()} ... {end.strip()} exactly once")
    return found[0].relative_to(ROOT)


def shown(name: str) -> str:
    """Return what the page says between the markers of the part called `name`."""
    begin, end = markers(name)
    return (ROOT / page_of(name)).read_text().partition(begin)[2].partition(end)[0]


def replace(name: str, text: str) -> None:
    """Put `text` between the markers of the part called `name`."""
    begin, end = markers(name)
    path = ROOT / page_of(name)
    before, _, rest = path.read_text().partition(begin)
    path.write_text(f"{before}{begin}{text}{end}{rest.partition(end)[2]}")


def link(page: Path, target: Path) -> str:
    """Return the address of `target` for a link on `page`, both from the root."""
    return os.path.relpath(target, page.parent)

"""`python -m bench.report`: pages hold what the committed rows say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import pages, report, rows

NAME, (BEGIN, END) = "step_cpu", pages.markers("step_cpu")


@pytest.mark.parametrize("name", report.PARTS)
def test_a_part_is_what_the_rows_say(name: str) -> None:
    shown = report.PARTS[name].text(pages.page_of(name))
    assert pages.shown(name) == shown
    assert "(" in shown or shown.startswith("Not measured yet: `")


def test_other_rows_are_another_part(monkeypatch: pytest.MonkeyPatch) -> None:
    read = rows.read

    def other(name: str) -> list[rows.Row]:
        changed: list[rows.Row] = []
        for row in read(name):
            new = {n: v * 1.5 for n, v in row.items() if isinstance(v, float) and n != "k"}
            changed.append(row | new | {"git": "another"})
        return changed

    monkeypatch.setattr(rows, "read", other)
    for name, part in report.PARTS.items():
        shown = pages.shown(name)
        if not shown.startswith("Not measured yet"):
            assert part.text(pages.page_of(name)) != shown, name


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose pages hold no part."""
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    (tmp_path / "README.md").write_text("# it\n")
    return tmp_path


def test_a_part_may_move_to_any_page(root: Path) -> None:
    page = root / "docs" / "deep" / "page.md"
    page.write_text(f"before\n{BEGIN}old\n\nolder{END}\nafter\n")
    assert pages.page_of(NAME) == Path("docs/deep/page.md") and pages.shown(NAME) == "old\n\nolder"
    pages.replace(NAME, "new")
    assert page.read_text() == f"before\n{BEGIN}new{END}\nafter\n"
    picture = Path("docs/images/step_cpu.png")
    assert pages.link(Path("docs/deep/page.md"), picture) == "../images/step_cpu.png"
    assert pages.link(Path("README.md"), picture) == str(picture)


@pytest.mark.parametrize(
    ("readme", "page", "named"),
    [
        ("", "", ["no page"]),
        (BEGIN + END, BEGIN + END, ["README.md", "docs/page.md"]),
        ("", 2 * (BEGIN + END), ["docs/page.md, docs/page.md"]),
        ("", BEGIN, ["docs/page.md"]),
    ],
)
def test_a_part_is_in_one_place(readme: str, page: str, named: list[str], root: Path) -> None:
    (root / "README.md").write_text(readme)
    (root / "docs" / "page.md").write_text(page)
    with pytest.raises(SystemExit) as refused:
        pages.page_of(NAME)
    assert all(one in str(refused.value) for one in (*named, NAME))

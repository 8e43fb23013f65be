"""docs/data.md says what the code checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from entprop_fast.lab.data.official_files import SOURCES

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text()


@pytest.mark.parametrize("name", SOURCES)
def test_every_official_file_is_in_the_table(name: str) -> None:
    source = SOURCES[name]
    assert source.counts is not None
    counts = ", ".join(f"{count:,}" for count in source.counts)
    assert f"| `{name}` | {counts} |" in PAGE
    for file in source.files:
        size = "2.5 MB" if file.size is None else f"{file.size:,}"
        assert f"`{file.name}` | {size} | `{file.md5}` |" in PAGE
    assert source.page.partition(" ")[0] in PAGE or name == "cars"

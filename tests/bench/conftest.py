"""Rows that a test makes, in place of the committed ones."""

from __future__ import annotations

import pytest

from bench import rows

WHERE = {"machine": "a machine", "versions": "its versions", "git": "abc"}


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[rows.Row]]:
    """What `rows.read` finds, by name."""
    found: dict[str, list[rows.Row]] = {}

    def read(name: str) -> list[rows.Row]:
        if name not in found:
            raise FileNotFoundError(name)
        return found[name]

    monkeypatch.setattr(rows, "read", read)
    monkeypatch.setattr(rows, "there", found.__contains__)
    return found

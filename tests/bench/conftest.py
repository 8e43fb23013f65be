"""Rows that a test makes, in place of the committed ones."""

from __future__ import annotations

import pytest

from bench import rows
from bench.step import cases
from bench.step import contenders as c
from bench.step.results import Row

WHERE = {"machine": "a machine", "versions": "its versions", "git": "abc"}
SECONDS = {
    c.VANILLA: 1.0,
    c.VANILLA_CHANNELS_LAST: 0.8,
    c.REFERENCE: 1.4,
    c.NAIVE: 1.6,
    c.COMPILED: 1.1,
    c.OURS_VANILLA: 0.7,
    c.OURS: 0.85,
}


def step_rows(device: str, **changed: float | None) -> list[rows.Row]:
    """Make every setting of a device with the seconds above, as committed rows have them."""
    found = []
    seconds = SECONDS | changed
    for setting in cases.settings(device):
        for contender in cases.contenders(setting):
            row = Row(setting, contender.name, peak_memory=100 << 20)
            row.seconds = seconds.get(contender.name, 2.0)
            if row.seconds is None:
                row.refused = "its losses differ"
            else:
                row.quartiles = (row.seconds - 0.01, row.seconds + 0.01)
            row.launches = 7 if device == "cuda" else None
            found.append(row.as_json() | WHERE)
    return found


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

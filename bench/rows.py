"""Rows of measurements as JSON lines, each with the machine, the versions and the commit."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from entprop_fast.env_report import report

ROWS = Path(__file__).parent / "rows"

Row = dict[str, Any]


def stamp() -> dict[str, str]:
    """Where and with what a row is measured."""
    sections = report()
    hardware, software = sections["hardware"], sections["software"]
    machine = ", ".join(
        value for name, value in hardware.items() if name != "cpu capability" and value != "none"
    )
    versions = ", ".join(
        f"{name} {software[name].split(' (')[0]}" for name in ("python", "torch", "triton", "numpy")
    )
    return {"machine": machine, "versions": versions, "git": sections["entprop_fast"]["git"]}


def write(name: str, rows: Iterable[Row]) -> Path:
    """Replace the rows called `name`, adding the stamp to each."""
    ROWS.mkdir(exist_ok=True)
    path, where = ROWS / f"{name}.jsonl", stamp()
    path.write_text("".join(json.dumps(row | where) + "\n" for row in rows))
    return path


def read(name: str) -> list[Row]:
    """The committed rows called `name`.

    Raises:
        FileNotFoundError: there are none; nothing was measured under that name.
    """
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text().splitlines()]

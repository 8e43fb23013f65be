"""Put what a GPU campaign measured among the committed rows: `python -m bench.collect FOLDER`.

FOLDER holds the ``rows.jsonl`` of bench/gpu_campaign.sh, from this machine or another one.
A table is kept by units that are measured as a whole: a network's step at one k and n, say. A unit
that is half measured is refused. What stands in the table already stays, if it is of the same
machine and versions: no table compares two machines.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench import captured_run, ragged_memory, rows
from bench.fusion import steps as fusion_steps
from bench.fusion import table as fusion_table
from bench.ops import cases as ops_cases
from bench.ops import sweep
from bench.ops import table as ops_table
from bench.recipes import table as recipes_table
from bench.step import batches
from bench.step import cases as step_cases
from bench.step import table as step_table
from entprop_fast.lab.training.recipe import data_set_recipes

JOURNAL = "rows.jsonl"
Key = tuple[Any, ...]


class Table(NamedTuple):
    """Say what a table has to hold.

    Attributes:
        by: fields that tell its rows apart.
        unit: so many of them, from the first on, tell what is measured as a whole.
        wanted: the values of these fields, or of the first of them, that have to be there.
        command: measures it.
    """

    by: tuple[str, ...]
    unit: int
    wanted: Callable[[], Iterable[Key]]
    command: str

    def key(self, row: rows.Row) -> Key:
        """Return the values that tell a row apart; a shape is a tuple."""
        values = (row.get(name, "") for name in self.by)
        return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _steps() -> Iterable[Key]:
    for setting in step_cases.settings("cuda"):
        for one in step_cases.contenders(setting):
            yield setting.arch, setting.k, setting.n, setting.piece, one.name


def _batches() -> Iterable[Key]:
    for arch in batches.ARCHITECTURES:
        for setting in batches.cases(arch):
            yield from ((arch, setting.batch, name) for name in batches.WHO)


def _ops() -> Iterable[Key]:
    for case in ops_cases.cases("cuda"):
        yield case.op, case.layout, str(case.dtype).removeprefix("torch."), case.shape


def _memory() -> Iterable[Key]:
    for arch in ragged_memory.NETWORKS:
        for kind in ragged_memory.KINDS:
            yield from ((arch, kind.name, capture) for capture in ragged_memory.CAPTURES)


TABLES = {
    step_table.name_of("cuda"): Table(
        ("arch", "k", "n", "piece", "contender"), 4, _steps, "pytest bench/step"
    ),
    ops_table.name_of("cuda"): Table(
        ("op", "layout", "dtype", "shape", "cache"), 0, _ops, "pytest -k cuda bench/ops"
    ),
    batches.NAME: Table(
        ("arch", "batch", "contender"), 1, _batches, "python -m bench.step.batches"
    ),
    sweep.NAME: Table(
        ("shape", "cut"),
        0,
        lambda: ((shape, tuple(cut)) for shape in sweep.SHAPES for cut in sweep.CUTS),
        "python -m bench.ops.sweep",
    ),
    captured_run.NAME: Table(
        ("data_set", "run"),
        1,
        lambda: ((name, run) for name in captured_run.SETS for run in captured_run.RUNS),
        "python -m bench.captured_run",
    ),
    ragged_memory.NAME: Table(
        ("arch", "smaller_batch", "capture"), 1, _memory, "python -m bench.ragged_memory"
    ),
    fusion_table.name_of("cuda"): Table(
        ("case",), 0, lambda: ((str(case),) for case in fusion_steps.CASES), "pytest bench/fusion"
    ),
    recipes_table.name_of("cuda"): Table(
        ("recipe",), 0, lambda: ((name,) for name in data_set_recipes()), "pytest bench/recipes"
    ),
}


def read(journal: Path) -> tuple[dict[str, list[rows.Row]], int]:
    """Return the rows of a campaign by table, and how many lines are no rows.

    The last line of a run that was cut off is one of these.
    """
    found: dict[str, list[rows.Row]] = {}
    no_rows = 0
    for line in journal.read_text(errors="replace").splitlines():
        row = _row(line)
        if row is None:
            no_rows += 1
        else:
            found.setdefault(row.pop(rows.TABLE), []).append(row)
    return found, no_rows


def _row(line: str) -> rows.Row | None:
    """Return the row of a line; None where it is no object that names its table and its origin."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    name = row.get(rows.TABLE) if isinstance(row, dict) else None
    if not isinstance(name, str):
        return None
    stamped = name not in TABLES or all(field in row for field in rows.SAME)
    return row if stamped else None


def whole_units(table: Table, measured: dict[Key, rows.Row]) -> tuple[list[Key], list[str]]:
    """Return the units that are all there, and a sentence on each that is half there."""
    wanted: dict[Key, list[Key]] = {}
    for key in table.wanted():
        wanted.setdefault(key[: table.unit], []).append(key)
    whole, half = [], []
    for unit, keys in wanted.items():
        known = {key[: len(keys[0])] for key in measured}
        missing = [key for key in keys if key not in known]
        if not missing:
            whole.append(unit)
        elif len(missing) < len(keys):
            what = " ".join(map(str, unit)) or "the table"
            first = " ".join(map(str, missing[0][table.unit :]))
            half.append(f"{what} lacks {len(missing)} of {len(keys)} rows, {first} first")
    return whole, half


def collect(name: str, found: Sequence[rows.Row]) -> tuple[list[str], bool]:
    """Put the whole units of a table into its file; return what to say, and whether all were."""
    table = TABLES[name]
    last = found[-1]  # after an update of torch, say, what was measured before does not count
    here = [row for row in found if rows.machine_of(row) == rows.machine_of(last)]
    measured = {table.key(row): row for row in here}  # of two measurements the last one counts
    whole, half = whole_units(table, measured)
    said = [f"{name}: half measured, not kept: {one}" for one in half]
    if elsewhere := len(found) - len(here):
        said.append(f"{name}: {elsewhere} rows of another machine or other versions, not kept")
    if whole:
        new = {key: row for key, row in measured.items() if key[: table.unit] in whole}
        old = rows.read(name) if rows.there(name) else []
        others = [row for row in old if table.key(row)[: table.unit] not in whole]
        stay = [row for row in others if rows.machine_of(row) == rows.machine_of(last)]
        if gone := len(others) - len(stay):
            said.append(f"{name}: {gone} rows of another machine or other versions make way")
        order = [key[: table.unit] for key in table.wanted()]
        kept = [row for row in (*new.values(), *stay) if table.key(row)[: table.unit] in order]
        kept.sort(key=lambda row: order.index(table.key(row)[: table.unit]))
        said.append(f"{name}: {len(new)} rows into {rows.replace(name, kept)}")
    return said, bool(whole) and not half and not elsewhere


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect every table of a campaign; return 0 if all that was measured was kept, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of a campaign: the one that holds rows.jsonl")
    journal = parser.parse_args(arguments).folder / JOURNAL
    if not journal.is_file():
        print(f"nothing was measured: {journal} is not there")
        return 1
    by_table, no_rows = read(journal)
    if no_rows:
        print(f"{journal}: left out {no_rows} lines that are no rows, as what was cut off")
    if not by_table:
        print(f"nothing was measured: no row in {journal}")
    passed = bool(by_table)
    for name, found in by_table.items():
        if name not in TABLES:
            print(f"{name}: no table that a campaign measures")
            continue
        said, kept = collect(name, found)
        print(*said, sep="\n")
        passed = passed and kept
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())

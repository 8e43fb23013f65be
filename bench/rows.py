"""Keep measurements as JSON lines, each with the machine, the versions and the commit.

Rows whose name ends in ``_cuda`` say the GPU's clocks, too, at the moment they were measured.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from bench import clocks
from entprop_fast.lab.cli.env_report import report
from entprop_fast.lab.files import json_lines

ROWS = Path(__file__).parent / "rows"
# Rows as they are measured, so that a run which is cut off leaves what it had. They do not replace
# the committed ones.
PARTS = Path(__file__).parent.parent / "build" / "rows"
# The path of one more file that every row is added to, beside the name it is kept under: what a
# GPU campaign of many commands has measured so far (bench/gpu_campaign.sh), for `bench.collect`.
JOURNAL, TABLE = "ENTPROP_ROWS", "table"
GPU = "_cuda"
SAME = ("machine", "versions")  # of rows that are compared

Row = dict[str, Any]

_measured: dict[str, list[tuple[Row, Row]]] = {}  # by this process: without their stamps, and with


@cache
def stamp() -> dict[str, str]:
    """Return where and with what a row is measured.

    The commit comes from ENTPROP_GIT where the files were copied to a machine without ``.git``.
    """
    sections = report()
    hardware, software = sections["hardware"], sections["software"]
    machine = ", ".join(
        value for name, value in hardware.items() if name != "cpu capability" and value != "none"
    )
    versions = ", ".join(
        f"{name} {software[name].split(' (')[0]}" for name in ("python", "torch", "triton", "numpy")
    )
    git = os.environ.get("ENTPROP_GIT") or sections["entprop_fast"]["git"]
    return {"machine": machine, "versions": versions, "git": git}


def stamp_of(name: str) -> Row:
    """Return the stamp of rows called `name`: on a GPU, with its clocks at this moment."""
    return stamp() | ({"clocks": clocks.read()} if name.endswith(GPU) else {})


def write(name: str, rows: Iterable[Row]) -> Path:
    """Replace the rows called `name`, adding the stamp to each."""
    where = stamp_of(name)
    return replace(name, (row | where for row in rows))


def replace(name: str, rows: Iterable[Row]) -> Path:
    """Replace the rows called `name` by these, which have their stamps."""
    ROWS.mkdir(exist_ok=True)
    path = ROWS / f"{name}.jsonl"
    path.write_text(json_lines(rows))
    return path


def keep_stamped(name: str, rows: Iterable[Row], *, by: Sequence[str]) -> Path:
    """Put rows among those called `name`; one that is there already keeps its stamp.

    Args:
        name: of the rows.
        rows: what was measured.
        by: what tells rows apart; of two that agree in it the new one stays.
    """
    where = stamp()
    known = {tuple(row[key] for key in by): row for row in (read(name) if there(name) else ())}
    for row in rows:
        place = tuple(row[key] for key in by)
        old = known.get(place, {})
        if row != {n: v for n, v in old.items() if n not in where}:
            known[place] = row | where
    return replace(name, known.values())


def keep(name: str, rows: Iterable[Row], *, whole: bool, by: Sequence[str] = ()) -> str:
    """Write the rows called `name` if they are all, else in their part; say where they are.

    Rows that were added before keep the stamps that they got then.

    Args:
        name: of the rows.
        rows: what was measured.
        whole: nothing was left out: the rows replace those that are there.
        by: what tells rows apart, where each may be measured by itself: of a part, those that no
            row is there of are put among them.
    """
    measured = [stamped for stamped, _ in _stamped_once(name, rows)]
    if whole:
        return f"rows: {replace(name, measured)}"
    begin(name).write_text(json_lines(measured))
    said = f"not everything was measured; what was: {part(name)}"
    if by and there(name):
        kept = read(name)
        known = {tuple(row[key] for key in by) for row in kept}
        new = [row for row in measured if tuple(row[key] for key in by) not in known]
        if new:
            said += f"; {len(new)} of them are new: {replace(name, [*kept, *new])}"
    return said


def _stamped_once(name: str, rows: Iterable[Row]) -> Iterator[tuple[Row, bool]]:
    """Yield each row, as it comes, with its stamp, and whether it is new to this process.

    New ones share the stamp of the first of them: asking for clocks takes time.
    """
    known = _measured.setdefault(name, [])
    where: Row = {}
    for row in rows:
        stamped = next((old for plain, old in known if plain == row), None)
        new = stamped is None
        if stamped is None:
            where = where or stamp_of(name)
            stamped = row | where
            known.append((dict(row), stamped))
        yield stamped, new


def part(name: str) -> Path:
    """Return where the rows called `name` are kept as they are measured."""
    return PARTS / f"{name}.jsonl"


def begin(name: str) -> Path:
    """Empty the part called `name` and return its path."""
    PARTS.mkdir(parents=True, exist_ok=True)
    path = part(name)
    path.write_text("")
    return path


def add(name: str, rows: Iterable[Row]) -> None:
    """Add rows to the part called `name`, with the stamp, and to the journal where there is one.

    Each is there before the next one is asked for, which may take its time to be measured. Rows
    that were added before, where a part is written anew, keep their stamps, and are in the journal
    already.
    """
    journal = os.environ.get(JOURNAL)
    for row, new in _stamped_once(name, rows):
        _append(part(name), row)
        if journal and new:
            _append(Path(journal), {TABLE: name} | row)


def _append(path: Path, row: Row) -> None:
    with path.open("a") as file:
        file.write(json_lines([row]))


def there(name: str) -> bool:
    """Return whether anything was measured under this name."""
    return (ROWS / f"{name}.jsonl").exists()


def read(name: str) -> list[Row]:
    """Read the committed rows called `name`.

    Raises:
        FileNotFoundError: there are none; nothing was measured under that name.
    """
    return [json.loads(line) for line in (ROWS / f"{name}.jsonl").read_text().splitlines()]


def machine_of(row: Row) -> tuple[str, ...]:
    """Return what `SAME` names; rows that differ in it say nothing of each other."""
    return tuple(row.get(field, "") for field in SAME)


def comparable(found: Iterable[Row]) -> list[Row]:
    """Return rows that are set against each other, in a ratio, a mean or a choice of the best.

    Raises:
        SystemExit: they are of two machines, or of one before and after an update.
    """
    compared = list(found)
    places = {machine_of(row): _place(row) for row in compared}
    if len(places) > 1:
        raise SystemExit(
            f"rows of {len(places)} machines or versions, which no table compares: "
            f"{' | '.join(places.values())}; keep those of one of them"
        )
    return compared


def origin(row: Row) -> str:
    """Say where and with what a row was measured."""
    return "; ".join((_place(row), row["git"]))


def origins(rows: Iterable[Row]) -> str:
    """Say where and with what rows were measured, each machine with its versions once."""
    found = list(rows)
    places = dict.fromkeys(map(_place, found))
    commits = dict.fromkeys(row["git"] for row in found)
    return f"{'; '.join(places)}; {', '.join(commits)}"


def _place(row: Row) -> str:
    known = (row.get(name) for name in ("machine", "clocks", "versions"))
    return "; ".join(value for value in known if value)

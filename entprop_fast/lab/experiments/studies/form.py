"""Define what studies have in common: settings, table, and the result that they end with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from entprop_fast.lab.files import write_atomically, write_json
from entprop_fast.lab.report.numbers import NOTHING, three_digits
from entprop_fast.lab.report.pictures import save_figure
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import legend
from entprop_fast.lab.report.text import markdown_records
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.errors import bad_input

Cell = str | int | float | None
Row = dict[str, Cell]

TABLE_MARKDOWN = "table.md"
TABLE_JSON = "table.json"
PICTURE = "picture.png"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Hold the settings of a study; everything else is the recipe's.

    Attributes:
        out: folder of the result, and of its runs.
        seeds: one run of every variant for each.
        train_size: training images.
        epochs: of every run; None for the recipe's.
        device: of the runs.
        data_dir: folder of a data set that is not embedded.
        recipe: the settings that the study's variants change.
        archs: architectures of the study that compares several; None for its own choice.
        workers: processes; None for one on each core or GPU, 1 runs in this process.
        overrides: settings put over the recipe's, beneath those of the study.
    """

    out: Path
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    train_size: int | None = 200
    epochs: int | None = None
    device: str = "auto"
    data_dir: str | None = None
    recipe: str = "digits"
    archs: tuple[str, ...] | None = None
    workers: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


class Table(NamedTuple):
    """Hold what a study measured: the rows that it prints, and what only its picture shows."""

    rows: list[Row]
    points: dict[str, Any] = {}  # noqa: RUF012 (nobody writes to the default)
    source: str = ""  # of the corrupted images behind RA


class Result(NamedTuple):
    """Hold what a study ends with."""

    rows: list[Row]
    figure: Figure
    sentence: str
    source: str


@dataclass(frozen=True)
class Study:
    """Answer a question about training by one command.

    Attributes:
        name: after ``python -m entprop_fast.study``.
        help: the question, in one line.
        compared: what answers it, in one line.
        measure: trains and measures.
        sentence: what the rows support; it sees nothing else.
        draw: the picture of the table.
    """

    name: str
    help: str
    compared: str
    measure: Callable[[Options, Reporter], Table]
    sentence: Callable[[Sequence[Row]], str]
    draw: Callable[[Figure, Table], None]

    def run(self, options: Options, reporter: Reporter | None = None) -> Result:
        """Train what is not yet in ``options.out``, and measure.

        Raises:
            UsageError: settings that cannot be used.
            RunFailed: a run failed; the others are done.
        """
        with bad_input():
            recipe.resolve(options.recipe, epochs=options.epochs, **options.overrides)
        table = self.measure(options, reporter or Reporter.quiet())
        figure = Figure(figsize=(9, 4), layout="constrained")
        self.draw(figure, table)
        return Result(table.rows, figure, self.sentence(table.rows), table.source)


def write(result: Result, study: Study, options: Options) -> None:
    """Write the table (Markdown and JSON, each with the sentence) and the picture."""
    setting = {
        "recipe": options.recipe,
        "seeds": list(options.seeds),
        "train_size": options.train_size,
        "epochs": options.epochs,
        **options.overrides,
        "corruption_source": result.source,
    }
    record = {
        "study": study.name,
        "setting": setting,
        "sentence": result.sentence,
        "rows": result.rows,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / TABLE_JSON, record)
    picture = f"![{study.help}]({PICTURE})"
    parts = (f"# {study.name}", study.help, picture, markdown(result.rows), result.sentence)
    about = f"{legend(result.rows[0])}. Corruptions: {result.source}."
    page = "\n\n".join((*parts, about))
    write_atomically(options.out / TABLE_MARKDOWN, f"{page}\n".encode())
    save_figure(result.figure, options.out / PICTURE)


def markdown(rows: Sequence[Row]) -> str:
    """Write the rows as a Markdown table, aligned, with a column for each key of the first."""
    lines = [{name: cell(row[name]) for name in rows[0]} for row in rows]
    return markdown_records(lines, aligned=True)


def cell(value: Cell) -> str:
    """Write a value with three digits or so; what there is none of is a dash."""
    if isinstance(value, float):
        return three_digits(value)
    return NOTHING if value is None else str(value)


def number(row: Mapping[str, Cell], name: str) -> float:
    """Return the number in a column of `row`.

    Raises:
        TypeError: it holds none.
    """
    value = row[name]
    if not isinstance(value, int | float):
        raise TypeError(f"{name} = {value!r} is no number")
    return float(value)

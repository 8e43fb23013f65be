"""Put what is known about runs into tables of text, as the page shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from entprop_fast.lab.evaluation.evaluation_tables import label_of
from entprop_fast.lab.evaluation.norm_drift import DRIFTS
from entprop_fast.lab.report.numbers import NOTHING, number, three_digits
from entprop_fast.lab.report.progress import duration
from entprop_fast.lab.run_report.answers import Answers
from entprop_fast.lab.run_report.read_run import Run

MOST_CLASSES = 25  # of a matrix that can still be read
MOST_PAIRS = 25  # of classes that are taken for one another
MOST_EPOCHS = 100  # rows of a table

_IMAGE_UNITS = ("eps", "alpha")
_CAPTURED = {True: "yes", False: "no", None: NOTHING}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Hold a cell's text, and how much of a colour is behind it, in [0, 1]."""

    text: str
    shade: float = 0.0
    kind: str = ""  # of colour: good, bad, zero (faint), or none


@dataclass(frozen=True, kw_only=True)
class Table:
    """Hold a table whose rows begin with their names.

    Attributes:
        caption: what it shows.
        corner: heading of the rows' names.
        columns: headings of the others.
        rows: name and cells of each.
        marked: names of rows that need attention.
        turned: write long headings from top to bottom.
        words: the cells are words, not numbers.
    """

    caption: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Cell]]]
    marked: set[str] = field(default_factory=set)
    turned: bool = False
    words: bool = False


def scores(runs: Sequence[Run]) -> Table:
    """Compare runs: a row for each."""
    rows = []
    shifts = list(dict.fromkeys(name for run in runs for name in run.scores.shifts))
    for run in runs:
        found = run.scores
        values = (
            (run.sa, 1),
            (found.ra, 1),
            (found.hscore, 1),
            *((found.shifts.get(name, {}).get("accuracy"), 1) for name in shifts),
            (found.cost, 2),
            (found.images_per_second, 0),
        )
        cells = [number(value, digits) for value, digits in values]
        state = "finished" if run.finished else f"{_epochs(run)} epochs"
        cells += [str(run.settings.get("method", NOTHING)), state]
        rows.append((run.name, _plain(cells)))
    columns = ["SA", "RA", "Hscore", *(f"shift {name}" for name in shifts)]
    columns += ["cost", "images/s", "method", "state"]
    return Table(caption="Scores of each run", corner="run", columns=columns, rows=rows)


def corruptions(run: Run) -> Table | None:
    """Write the accuracy under each kind and severity, or None where none were tested."""
    if not run.scores.corruptions:
        return None
    found = run.scores.corruptions
    most = max(map(len, found.values()))
    rows = []
    for kind, values in found.items():
        cells = [*values, *[None] * (most - len(values)), fmean(values)]
        rows.append((label_of(kind, run.scores.corruption_source), _heat(cells)))
    columns = [*map(str, range(1, most + 1)), "mean"]
    caption = f"Accuracy (%) of {run.name} by kind of corruption and severity"
    return Table(caption=caption, corner="kind", columns=columns, rows=rows)


def corruptions_by_run(runs: Sequence[Run]) -> Table | None:
    """Compare runs kind by kind, each the mean of its severities."""
    found = {run.name: run.scores for run in runs if run.scores.corruptions}
    labelled = {
        name: {
            label_of(kind, one.corruption_source): fmean(values)
            for kind, values in one.corruptions.items()
        }
        for name, one in found.items()
    }
    kinds = list(dict.fromkeys(kind for one in labelled.values() for kind in one))
    if not kinds:
        return None
    rows = [(kind, _heat([one.get(kind) for one in labelled.values()])) for kind in kinds]
    caption = "Accuracy (%) by kind of corruption, mean of the severities"
    return Table(caption=caption, corner="kind", columns=list(labelled), rows=rows)


def confusion(answers: Answers, name: str) -> Table:
    """Write the confusion matrix, or, of many classes, the pairs most often taken for another."""
    names = answers.class_names
    if len(names) > MOST_CLASSES:
        return _pairs(answers, name)
    rows = []
    for place, counts in enumerate(answers.confusion):
        total = max(1, sum(counts))
        cells = [
            Cell(
                text=str(count),
                shade=_share_shade(count / total, right=at == place),
                kind="zero" if not count else "good" if at == place else "bad",
            )
            for at, count in enumerate(counts)
        ]
        share = Cell(text=number(100 * counts[place] / total))
        rows.append((names[place], [*cells, share]))
    caption = f"Test images of {name} by true class (rows) and predicted class (columns)"
    columns = [*names, "right (%)"]
    turned = any(len(one) > 4 for one in names)
    return Table(caption=caption, corner="true", columns=columns, rows=rows, turned=turned)


def _share_shade(share: float, *, right: bool) -> float:
    """Shade right answers by their share; a single wrong one is to be seen already."""
    return share if right else 0.25 + 0.75 * share**0.5


def _pairs(answers: Answers, name: str) -> Table:
    found = [
        (count, true, predicted)
        for true, counts in enumerate(answers.confusion)
        for predicted, count in enumerate(counts)
        if count and true != predicted
    ]
    rows = []
    for count, true, predicted in sorted(found, key=lambda one: -one[0])[:MOST_PAIRS]:
        of_class = sum(answers.confusion[true])
        cells = [answers.class_names[predicted], str(count), number(100 * count / of_class)]
        rows.append((answers.class_names[true], _plain(cells)))
    caption = (
        f"Classes of {name} most often taken for another; a matrix of "
        f"{len(answers.class_names)} could not be read"
    )
    columns = ["taken for", "images", "of the class (%)"]
    return Table(caption=caption, corner="true", columns=columns, rows=rows)


def drifts(found: Mapping[str, Mapping[str, float]], name: str) -> Table:
    """Write how far the halves lie apart, a row for each layer."""
    rows = []
    for place, (layer, values) in enumerate(found.items(), 1):
        cells = [layer, *(_digits(values.get(kind)) for kind in DRIFTS)]
        rows.append((str(place), _plain(cells)))
    columns = ["layer", *(kind.removeprefix("drift of ") for kind in DRIFTS)]
    return Table(
        caption=f"Distance of main and auxiliary halves in {name}",
        corner="norm",
        columns=columns,
        rows=rows,
    )


def speed(runs: Sequence[Run]) -> Table:
    """Write what training took, a column for each run."""
    rows: dict[str, list[str]] = {}
    for run in runs:
        one, seconds = run.scores, [row.get("train_seconds", 0.0) for row in run.rows]
        for name, value in {
            "images per second": number(one.images_per_second, 0),
            "cost, in passes over the training images": number(one.cost, 2),
            "epochs": _epochs(run),
            "time in steps": duration(sum(seconds)) if seconds else NOTHING,
            "time of the whole run": _time(one.seconds),
            "steps replayed as a CUDA graph": _CAPTURED[one.captured],
            "processes": _count(one.processes),
            "device": one.device or str(run.settings.get("device", NOTHING)),
            "mixed precision": str(run.settings.get("amp", NOTHING)),
            "training images": _count(one.train_size),
            "parameters": _count(one.parameters),
        }.items():
            rows.setdefault(name, []).append(value)
    return Table(
        caption="Speed and cost",
        corner="measure",
        columns=[run.name for run in runs],
        rows=[(name, _plain(cells)) for name, cells in rows.items()],
        words=True,
    )


def settings(runs: Sequence[Run]) -> Table:
    """Write every setting, a column for each run; rows that differ are marked."""
    names = list(dict.fromkeys(name for run in runs for name in run.settings))
    rows = {
        name: [_setting(name, run.settings.get(name, NOTHING)) for run in runs] for name in names
    }
    return Table(
        caption="Settings",
        corner="setting",
        columns=[run.name for run in runs],
        rows=[(name, _plain(cells)) for name, cells in rows.items()],
        marked={name for name, cells in rows.items() if len(set(cells)) > 1},
        words=True,
    )


def epochs(run: Run) -> Table:
    """Write the numbers behind the curves, of so many epochs as a table can hold."""
    every = -(-len(run.rows) // MOST_EPOCHS) or 1
    kept = [row for at, row in enumerate(run.rows, 1) if at % every == 0 or at == len(run.rows)]
    names = [one for one in dict.fromkeys(n for row in kept for n in row) if one != "epoch"]
    rows = [(f"{row['epoch']:g}", _plain([_digits(row.get(n)) for n in names])) for row in kept]
    which = "" if every == 1 else f", one in {every} and the last"
    return Table(
        caption=f"Epochs of {run.name}{which}",
        corner="epoch",
        columns=[one.replace("_", " ") for one in names],
        rows=rows,
    )


def environment(section: str, lines: Mapping[str, str]) -> Table:
    """Write a section of `entprop_fast.env_report`."""
    rows = [(name, _plain([value])) for name, value in lines.items()]
    return Table(caption=section, corner="what", columns=["value"], rows=rows, words=True)


def _epochs(run: Run) -> str:
    return f"{run.epochs_done} of {run.epochs_planned}"


def _plain(cells: Sequence[str]) -> list[Cell]:
    return [Cell(text=one) for one in cells]


def _heat(percent: Sequence[float | None]) -> list[Cell]:
    return [
        Cell(text=number(one), shade=0.0 if one is None else one / 100, kind="good")
        for one in percent
    ]


def _digits(value: float | None) -> str:
    if value is None or isinstance(value, int):
        return NOTHING if value is None else str(value)
    return three_digits(value) if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def _setting(name: str, value: object) -> str:
    if name in _IMAGE_UNITS and isinstance(value, float):
        return f"{255 * value:.4g}/255"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _time(seconds: float | None) -> str:
    return NOTHING if seconds is None else duration(seconds)

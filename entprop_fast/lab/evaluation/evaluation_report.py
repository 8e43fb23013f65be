"""Evaluations side by side: their tables, as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.suites import GENERATED
from entprop_fast.lab.evaluation.attacks import NO_DEFENCE
from entprop_fast.lab.evaluation.evaluation_result import Evaluation, Row
from entprop_fast.lab.evaluation.intervals import CONFIDENCE
from entprop_fast.lab.files import write_atomically, write_json
from entprop_fast.lab.report import text

JSON, MARKDOWN = "evaluation.json", "evaluation.md"
HEAT_MAP = "corruptions.png"

NOTHING = "–"


def scores(evaluations: Sequence[Evaluation]) -> list[dict[str, str]]:
    """A line for each network: its means, in percent."""
    return [
        {
            "network": one.name,
            "norms": one.norms,
            "SA": _number(one.sa),
            "RA": _number(one.ra),
            "Hscore": _number(one.hscore),
            "interval": _bounds(one.hscore_interval),
            "ECE": _number(one.rows[0].ece),
            "ECE, corrupted": _number(one.corruption_ece),
            "mCE": _number(one.mce),
            "corruptions": one.corruption_source or NOTHING,
        }
        for one in evaluations
    ]


def tests(evaluations: Sequence[Evaluation]) -> list[dict[str, str]]:
    """A line for each network and set of images, with its interval and source."""
    return [
        {
            "network": one.name,
            "norms": one.norms,
            "test": row.test,
            "accuracy": _number(row.accuracy),
            "interval": _bounds((row.low, row.high)),
            "by": row.interval,
            "images": str(row.images),
            "source": "; ".join(filter(None, (row.source, _own_note(row)))),
        }
        for one in evaluations
        for row in one.rows
    ]


def kinds(evaluation: Evaluation) -> list[dict[str, str]]:
    """A line for each kind of corruption of one network."""
    lines = []
    for group in (evaluation.corruptions, evaluation.extra):
        for kind, values in group.items():
            label = evaluation.label_of(kind)
            line = {"corruption": label if group is evaluation.corruptions else f"{label} (extra)"}
            line |= {str(s): _number(v) for s, v in zip(SEVERITIES, values, strict=True)}
            line["mean"] = _number(sum(values) / len(values))
            if evaluation.ce:
                line["CE"] = _number(evaluation.ce.get(kind))
            lines.append(line)
    return lines


def markdown(evaluations: Sequence[Evaluation], *, picture: str | None = None) -> str:
    """The whole report of one network or of several on the same data set.

    Args:
        evaluations: of the networks.
        picture: the file of the heat map beside it, None where there is none.
    """
    parts = [
        f"# {text.markdown(evaluations[0].dataset)}",
        _markdown_table(scores(evaluations)),
        legend(evaluations),
    ]
    if picture is not None:
        parts.append(f"![accuracy under each kind of corruption]({picture})")
    parts += ["## Every test", _markdown_table(tests(evaluations))]
    if any(row.note.startswith(NO_DEFENCE) for one in evaluations for row in one.rows):
        parts.append(f"**{NO_DEFENCE}**")
    for one in evaluations:
        if one.corruptions:
            name, source = text.markdown(one.name), text.markdown(one.corruption_source)
            heading = f"## {name}, {one.norms} norms: accuracy by kind and severity"
            parts += [heading, f"Source: {source}.", _markdown_table(kinds(one))]
    return "\n\n".join(parts) + "\n"


def write(folder: Path, evaluations: Sequence[Evaluation]) -> None:
    """JSON, Markdown and its picture into a folder, made if need be."""
    from entprop_fast.lab.evaluation.evaluation_pictures import draw_heat_map_of

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON, {"evaluations": [one.as_dict() for one in evaluations]})
    drawn = all(one.corruptions for one in evaluations)
    if drawn:
        draw_heat_map_of(folder / HEAT_MAP, evaluations)
    text = markdown(evaluations, picture=HEAT_MAP if drawn else None)
    write_atomically(folder / MARKDOWN, text.encode())


def as_document(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """For one JSON file: a network's own fields, or a list of several."""
    if len(evaluations) == 1:
        one = evaluations[0].as_dict()
        return {"checkpoint": one.pop("name"), **one}
    return {"evaluations": [one.as_dict() for one in evaluations]}


def _own_note(row: Row) -> str:
    return row.note.removeprefix(NO_DEFENCE).strip()  # that one stands below the table


def legend(evaluations: Sequence[Evaluation]) -> str:
    """What the columns of `scores` mean, and what cannot be compared."""
    seen = f"{evaluations[0].rows[0].images} clean test images"
    said = (
        f"In percent; {seen}. SA: accuracy on clean images; RA: plain mean over kinds and "
        f"severities; Hscore: their harmonic mean, with a bootstrap interval over images. "
        f"Intervals are {100 * CONFIDENCE:.0f} %. ECE: expected calibration error, 15 bins."
    )
    if any(one.mce is not None for one in evaluations):
        said += " mCE: mean corruption error, AlexNet's is 100."
    sources = {one.corruption_source for one in evaluations if one.corruptions}
    if any(source.startswith(GENERATED) for source in sources):
        said += " Generated corruptions are no official set: do not compare them with scores on it."
    if len(sources) > 1:
        said += " **The rows come from different corrupted images and cannot be compared.**"
    return said


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _bounds(bounds: tuple[float, float] | None) -> str:
    return NOTHING if bounds is None else f"{bounds[0]:.1f} – {bounds[1]:.1f}"


def _markdown_table(lines: Sequence[Mapping[str, str]]) -> str:
    return text.markdown_table([list(lines[0]), *(list(line.values()) for line in lines)])

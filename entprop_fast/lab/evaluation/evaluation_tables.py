"""Write evaluations side by side as tables; they are given as `Evaluation.as_dict` has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.suites import GENERATED
from entprop_fast.lab.evaluation.attacks import NO_DEFENCE
from entprop_fast.lab.evaluation.intervals import CONFIDENCE
from entprop_fast.lab.report import text
from entprop_fast.lab.report.numbers import NOTHING, number

Fields = Mapping[str, Any]

SHIFTS = "Further sets of the same classes; drop: SA less the accuracy there, in points."


def label_of(kind: str, source: str) -> str:
    """Return a kind's name in tables: frost made here is not the published one."""
    return f"{kind} (procedural)" if kind == "frost" and source.startswith(GENERATED) else kind


def undefended(evaluations: Sequence[Fields]) -> bool:
    """Return whether an attack was measured that says nothing about a defence."""
    return any(row["note"].startswith(NO_DEFENCE) for one in evaluations for row in one["rows"])


def scores(evaluations: Sequence[Fields]) -> list[dict[str, str]]:
    """Return a line for each network: its means, in percent."""
    return [
        {
            "network": one["name"],
            "norms": one["norms"],
            "SA": number(one["sa"]),
            "RA": number(one["ra"]),
            "Hscore": number(one["hscore"]),
            "interval": _bounds(one["hscore_interval"]),
            "ECE": number(one["rows"][0]["ece"]),
            "ECE, corrupted": number(one["corruption_ece"]),
            "mCE": number(one["mce"]),
            "corruptions": one["corruption_source"] or NOTHING,
        }
        for one in evaluations
    ]


def tests(evaluations: Sequence[Fields]) -> list[dict[str, str]]:
    """Return a line for each network and set of images, with its interval and source."""
    return [
        {
            "network": one["name"],
            "norms": one["norms"],
            "test": row["test"],
            "accuracy": number(row["accuracy"]),
            "interval": _bounds((row["low"], row["high"])),
            "by": row["interval"],
            "images": str(row["images"]),
            "source": "; ".join(filter(None, (row["source"], _own_note(row)))),
        }
        for one in evaluations
        for row in one["rows"]
    ]


def shifts(evaluations: Sequence[Fields]) -> list[dict[str, str]]:
    """Return a line for each network and further test set of the same classes."""
    return [
        {
            "network": one["name"],
            "norms": one["norms"],
            "shift": name,
            "accuracy": number(found["accuracy"]),
            "drop": number(found["drop"]),
            "ECE": number(found["ece"]),
            "images": str(int(found["images"])),
        }
        for one in evaluations
        for name, found in one["shifts"].items()
    ]


def kinds(evaluation: Fields) -> list[dict[str, str]]:
    """Return a line for each kind of corruption of one network."""
    lines = []
    for group in (evaluation["corruptions"], evaluation["extra"]):
        for kind, values in group.items():
            label = label_of(kind, evaluation["corruption_source"])
            label += "" if group is evaluation["corruptions"] else " (extra)"
            line = {"corruption": label}
            line |= {str(s): number(v) for s, v in zip(SEVERITIES, values, strict=True)}
            line["mean"] = number(sum(values) / len(values))
            if evaluation["ce"]:
                line["CE"] = number(evaluation["ce"].get(kind))
            lines.append(line)
    return lines


def markdown(evaluations: Sequence[Fields], *, picture: str | None = None) -> str:
    """Write the whole report of one network or of several on the same data set."""
    parts = [
        f"# {text.markdown(evaluations[0]['dataset'])}",
        text.markdown_records(scores(evaluations)),
        legend(evaluations),
    ]
    if picture is not None:
        parts.append(f"![accuracy under each kind of corruption]({picture})")
    if shifted := shifts(evaluations):
        parts += ["## Natural shifts", SHIFTS, text.markdown_records(shifted)]
    parts += ["## Every test", text.markdown_records(tests(evaluations))]
    if undefended(evaluations):
        parts.append(f"**{NO_DEFENCE}**")
    for one in evaluations:
        if one["corruptions"]:
            name, source = text.markdown(one["name"]), text.markdown(one["corruption_source"])
            heading = f"## {name}, {one['norms']} norms: accuracy by kind and severity"
            parts += [heading, f"Source: {source}.", text.markdown_records(kinds(one))]
    return "\n\n".join(parts) + "\n"


def _own_note(row: Fields) -> str:
    return str(row["note"]).removeprefix(NO_DEFENCE).strip()  # that one stands below the table


def legend(evaluations: Sequence[Fields]) -> str:
    """Explain the columns of `scores`, and say what cannot be compared."""
    seen = f"{evaluations[0]['rows'][0]['images']} clean test images"
    said = (
        f"In percent; {seen}. SA: accuracy on clean images; RA: plain mean over kinds and "
        f"severities; Hscore: their harmonic mean, with a bootstrap interval over images. "
        f"Intervals are {100 * CONFIDENCE:.0f} %. ECE: expected calibration error, 15 bins."
    )
    if any(one["mce"] is not None for one in evaluations):
        said += " mCE: mean corruption error, AlexNet's is 100."
    sources = {one["corruption_source"] for one in evaluations if one["corruptions"]}
    if any(source.startswith(GENERATED) for source in sources):
        said += " Generated corruptions are no official set: do not compare them with scores on it."
    if len(sources) > 1:
        said += " **The rows come from different corrupted images and cannot be compared.**"
    return said


def _bounds(bounds: Sequence[float] | None) -> str:
    return NOTHING if bounds is None else " – ".join(map(number, bounds))

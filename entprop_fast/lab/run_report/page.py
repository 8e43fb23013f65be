"""Put a page together: every text of a run goes into it escaped, and no script does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import entprop_fast
from entprop_fast.lab.evaluation.norm_drift import DRIFTS
from entprop_fast.lab.report.numbers import NOTHING, number
from entprop_fast.lab.report.tables import MEANINGS
from entprop_fast.lab.report.text import plain
from entprop_fast.lab.run_report import curves, run_tables
from entprop_fast.lab.run_report.answers import Answers
from entprop_fast.lab.run_report.examine import Examined
from entprop_fast.lab.run_report.read_run import Run

MARK = b"<!doctype html>\n<!-- a report of entprop_fast -->"  # how every page begins
SECTIONS = {
    "scores": "Scores",
    "curves": "Curves",
    "corruptions": "Corruptions",
    "confusion": "Confusion matrix",
    "images": "Test images",
    "norms": "Norm drift",
    "speed": "Speed and cost",
    "settings": "Settings",
    "environment": "Environment",
}
_EXACT = 0.051  # points: what rounding to a decimal hides


@dataclass(frozen=True, kw_only=True)
class Card:
    """Hold a number that leads the page."""

    name: str
    value: str
    meaning: str


def render(
    runs: Sequence[Run],
    examined: Sequence[Examined],
    environment: Mapping[str, Mapping[str, str]],
) -> bytes:
    """Write the page, UTF-8.

    Args:
        runs: one, or several to be shown side by side.
        examined: what was found about each.
        environment: sections of ``name -> value``, of the machine that writes the page.
    """
    answers = {run.name: one.answers for run, one in zip(runs, examined, strict=True)}
    drifts = {run.name: one.drifts for run, one in zip(runs, examined, strict=True)}
    measured = {name: one for name, one in drifts.items() if not isinstance(one, str)}
    text = (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
            subtitle=_subtitle(runs),
            notices=list(_notices(runs, answers)),
            sections=SECTIONS,
            runs=runs,
            cards=_cards(runs[0]) if len(runs) == 1 else [],
            meanings={name: MEANINGS[name] for name in ("SA", "RA", "Hscore", "cost")},
            scores=run_tables.scores(runs),
            training_panels=curves.training_panels(runs),
            speed_panels=curves.speed_panels(runs),
            drift_panels=curves.drift_panels(measured, DRIFTS),
            epochs={run.name: run_tables.epochs(run) for run in runs if run.rows},
            corruptions_by_run=run_tables.corruptions_by_run(runs) if len(runs) > 1 else None,
            corruptions={run.name: run_tables.corruptions(run) for run in runs},
            sources=_sources(runs),
            answers=answers,
            reasons={name: one for name, one in answers.items() if isinstance(one, str)},
            confusion={
                name: run_tables.confusion(one, name)
                for name, one in answers.items()
                if isinstance(one, Answers)
            },
            drifts={name: run_tables.drifts(one, name) for name, one in measured.items()},
            drift_reasons={name: one for name, one in drifts.items() if isinstance(one, str)},
            speed=run_tables.speed(runs),
            settings=run_tables.settings(runs),
            environment=[
                run_tables.environment(name, lines) for name, lines in environment.items()
            ],
            version=entprop_fast.__version__,
            written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )
    return MARK + b"\n" + text.encode(errors="backslashreplace")


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("entprop_fast.lab.run_report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    made.filters["number"] = number
    return made


def _visible(value: Any) -> Any:
    """Show what would turn a line of text around, or end it, as an escape."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _subtitle(runs: Sequence[Run]) -> str:
    """Name what the runs share: method, network, data set, seed."""
    parts = []
    for name in ("method", "arch", "dataset", "seed"):
        values = list(dict.fromkeys(str(run.settings.get(name, NOTHING)) for run in runs))
        label = f"{name} " if name == "seed" else ""
        parts.append(label + ", ".join(values))
    return " · ".join(parts)


def _cards(run: Run) -> list[Card]:
    found = run.scores
    so_far = "" if run.finished else f"{MEANINGS['SA']}, after {run.epochs_done} epochs"
    return [
        Card(name="SA", value=_percent(run.sa), meaning=so_far or MEANINGS["SA"]),
        Card(name="RA", value=_percent(found.ra), meaning=MEANINGS["RA"]),
        Card(
            name="Hscore",
            value=_percent(found.hscore),
            meaning="harmonic mean of SA and RA",
        ),
        Card(
            name="Cost",
            value=number(found.cost, 2),
            meaning="passes over the training images",
        ),
    ]


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{number(value)} %"


def _notices(runs: Sequence[Run], answers: Mapping[str, Answers | str]) -> Iterator[str]:
    """Say what a reader has to know before the numbers."""
    for run in runs:
        if not run.finished:
            yield (
                f"{run.name} is not finished: {run.epochs_done} of {run.epochs_planned} epochs "
                "are whole. Its SA is that of the last one; RA, Hscore and cost follow at its end."
            )
        for note in run.notes:
            yield f"{run.name}: {note}."
        found = answers[run.name]
        if not run.finished or run.sa is None or isinstance(found, str):
            continue
        if abs(found.accuracy - run.sa) > _EXACT:
            yield (
                f"{run.name}: now {number(found.accuracy, 2)} % of the test images are classified "
                f"right, its summary says {number(run.sa, 2)} %. The images, the network or the "
                "arithmetic of the machine is another."
            )
    data_sets = {str(run.settings.get("dataset", NOTHING)) for run in runs}
    if len(data_sets) > 1:
        yield f"The runs are on {len(data_sets)} data sets: their scores cannot be compared."
    elif len(_sources(runs)) > 1:
        yield "RA and Hscore come from different corrupted images and cannot be compared."


def _sources(runs: Sequence[Run]) -> list[str]:
    named = (run.scores.corruption_source for run in runs if run.scores.corruptions)
    return list(dict.fromkeys(named))

"""Write and draw what the rows of `bench.real_images` say: scores, differences, pictures."""

import contextlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench import real_images, rows
from bench.pages import link
from bench.real_images import AUGMENTATIONS, BASELINE, LABELS, OURS, Runs, over
from bench.real_images_speed import rows_name
from entprop_fast.lab.evaluation.intervals import CONFIDENCE
from entprop_fast.lab.experiments.comparison.comparison_plot import draw_comparison
from entprop_fast.lab.experiments.comparison.comparison_tables import cells, legend
from entprop_fast.lab.experiments.comparison.method_rows import (
    MethodRow,
    against,
    method_rows,
    statement,
)
from entprop_fast.lab.experiments.statistics import (
    CORRECTION,
    SIGNIFICANCE,
    TEST,
    Difference,
    corrected,
    paired,
)
from entprop_fast.lab.report.numbers import difference, number, plus_minus
from entprop_fast.lab.report.pictures import draw_heat_map
from entprop_fast.lab.report.text import markdown_records

NAMES = ("fashion_mnist", "emoji", real_images.FINETUNED)
UNMEASURED = "unmeasured"


def pictures_of(name: str) -> tuple[Path, Path]:
    """Return the paths, from the root, of the pictures of scores and of corruptions."""
    folder = Path("docs/images")
    return folder / f"{name}.png", folder / f"{name}_corruptions.png"


def compared(name: str) -> Runs:
    """Return the committed rows, once there are any of what all others are compared with.

    Raises:
        FileNotFoundError: there are none of it: a winner among the others would be no finding.
    """
    runs = real_images.read(name)
    if not runs[BASELINE]:
        raise FileNotFoundError(f"the rows {name} have none of {BASELINE}")
    return runs


def section(name: str, page: Path) -> str:
    """Write the part of a data set: tables, what they support, pictures."""
    runs = compared(name)
    table = method_rows(runs, BASELINE)
    first = next(row for of_seed in runs.values() for row in of_seed.values())
    scores, corruptions = pictures_of(name)
    said = [statement(table, BASELINE), *against(method_rows(runs, OURS), OURS)]
    said += [both_or_one(runs), _left_out(runs)]
    return "\n\n".join(
        (
            f"![SA against RA, Hscore against cost]({link(page, scores)})",
            markdown_records([*_with_unmeasured(cells(table, BASELINE), table)]),
            " ".join(one for one in said if one),
            markdown_records([*_further(runs, _speeds(name))]),
            f"{first['train_size']} training images, equal passes: as many rows through the "
            f"network as plain training's {_epochs(runs)} epochs send. "
            f"{legend(BASELINE, seconds=False, source=first['corruption_source'])} "
            "ECE: expected calibration error, in percent; epochs: those that the passes pay for; "
            "a step: its CPU time, loader and augmentation included, by that of plain training, "
            "one core, medians of steps in turns (`python -m bench.real_images_speed`). "
            f"Made by `python -m bench.{name}` ({origins(runs)}).",
            f"![Accuracy under each corruption]({link(page, corruptions)})",
        )
    )


def both_or_one(runs: Runs) -> str:
    """Say what EntProp adds to each augmentation that it was tried over, and that to EntProp."""
    pairs: dict[str, tuple[str, str]] = {}
    for augment, label in AUGMENTATIONS.items():
        both = over(augment)[1]
        pairs[f"{both} against {label}"] = (both, label)
        pairs[f"{both} against {OURS}"] = (both, OURS)
    found: dict[str, Difference] = {}
    for name, (one, other) in pairs.items():
        gain = paired(*({s: r["hscore"] for s, r in runs.get(n, {}).items()} for n in (one, other)))
        if gain is not None:
            found[name] = gain
    if not found:
        return ""
    said = [
        f"{name}: {one.verdict}, {difference(one.mean)}{_interval(one)}"
        for name, one in corrected(found).items()
    ]
    return (
        f"Both, or one of them ({TEST}, {CORRECTION} p < {SIGNIFICANCE:g}; in brackets the "
        f"{100 * CONFIDENCE:.0f} % interval): {'; '.join(said)}."
    )


def _interval(gain: Difference) -> str:
    if gain.low is None or gain.high is None:
        return ""
    return f" ({difference(gain.low)} to {difference(gain.high)})"


def _left_out(runs: Runs) -> str:
    """Name the rows that are not measured yet, and the augmentations that EntProp is not over."""
    missing = [label for label, found in runs.items() if not found]
    return f"Not measured yet: {', '.join(missing)}." if missing else ""


def _with_unmeasured(
    lines: Iterable[dict[str, str]], table: Sequence[MethodRow]
) -> Iterable[dict[str, str]]:
    for line, row in zip(lines, table, strict=True):
        shown = line if row.seeds else line | {"SA": UNMEASURED}
        yield {name: cell for name, cell in shown.items() if name != "seconds"}


def _further(runs: Runs, speeds: Mapping[str, rows.Row]) -> Iterable[dict[str, str]]:
    """Make the cells of calibration and speed; means over seeds."""
    measured = {label: list(of_seed.values()) for label, of_seed in runs.items() if of_seed}
    for label, found in measured.items():
        speed = speeds.get(label)
        yield {
            "method": label,
            "ECE": _mean(row.get("ece") for row in found),
            "ECE, corrupted": _mean(row.get("corruption_ece") for row in found),
            "epochs": str(found[0]["epochs"]),
            "a step": UNMEASURED if speed is None else f"{speed['times_vanilla']:.2f}",
            "images/s": "–" if speed is None else number(speed["images_per_second"], 0),
        }


def _speeds(name: str) -> dict[str, rows.Row]:
    """Return the committed rows of `bench.real_images_speed`, by method; none where none are."""
    of_steps = rows_name(name)
    found = rows.read(of_steps) if rows.there(of_steps) else []
    return {row["variant"]: row for row in found}


def _mean(values: Iterable[float | None]) -> str:
    there = [value for value in values if value is not None]
    deviation = statistics.stdev(there) if len(there) > 1 else None
    return plus_minus(statistics.fmean(there), deviation) if there else UNMEASURED


def _epochs(runs: Runs) -> str:
    return str(next(iter(runs[BASELINE].values()))["epochs"])


def origins(runs: Runs) -> str:
    """Say where and with what the rows were measured."""
    return rows.origins(row for of_seed in runs.values() for row in of_seed.values())


def draw_scores(name: str, path: Path) -> None:
    """Draw SA against RA, and Hscore against cost, of what is measured."""
    draw_comparison(path, method_rows(compared(name), BASELINE))


def draw_corruptions(name: str, path: Path) -> None:
    """Draw the accuracy of each method under each corruption, mean of severities and seeds."""
    runs = {label: list(found.values()) for label, found in compared(name).items() if found}
    kinds = list(next(iter(runs.values()))[0]["corruptions"])
    means = {
        label: [
            statistics.fmean(statistics.fmean(row["corruptions"][kind]) for row in found)
            for kind in kinds
        ]
        for label, found in runs.items()
    }
    draw_heat_map(path, means, kinds, title="accuracy (%), mean of the severities")


def first_measured() -> str | None:
    """Return the data set that stands for all: plain training and EntProp are measured on it."""
    for name in NAMES:
        with contextlib.suppress(FileNotFoundError):
            if compared(name)[OURS]:
                return name
    return None


def shown(runs: Runs) -> tuple[str, ...]:
    """Return five rows that answer which to use: EntProp, what is simpler, or both of them."""
    measured = real_images.best_of(runs)
    both = [augment for augment in measured if runs.get(over(augment)[1])]
    augment = next(iter([*both, *measured, "augmix:jsd=12"]))
    return (BASELINE, LABELS["mixup"], AUGMENTATIONS[augment], OURS, over(augment)[1])

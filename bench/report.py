"""Draw the committed rows and write their tables into README and docs: `python -m bench.report`."""

import contextlib
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import captured_run, digits, ragged_memory, real_images_table, rows, studies, trade
from bench.augment import table as augment_table
from bench.corruptions import table as corruptions_table
from bench.fusion import table as fusion_table
from bench.ops import sweep
from bench.ops import table as ops_table
from bench.pages import ROOT, link, page_of, replace
from bench.recipes import table as recipes_table
from bench.roofline import rows as roofline_rows
from bench.roofline import table as roofline_table
from bench.scale import table as scale_table
from bench.step import batches
from bench.step import picture as step_picture
from bench.step import table as step_table
from bench.zoo import table as zoo_table
from entprop_fast.lab.evaluation.intervals import CONFIDENCE
from entprop_fast.lab.experiments.comparison.comparison_plot import draw_comparison
from entprop_fast.lab.experiments.comparison.comparison_tables import legend, markdown_table
from entprop_fast.lab.experiments.comparison.method_rows import against, method_rows, statement
from entprop_fast.lab.experiments.statistics import UNCLEAR, corrected, paired
from entprop_fast.lab.report.pictures import draw_heat_map

Runs = dict[str, dict[int, rows.Row]]  # variant, seed

SCORES = Path("docs/images/digits.png")
CORRUPTIONS = Path("docs/images/digits_corruptions.png")


def digits_section(page: Path) -> str:
    """Write the part of the digits: table, statement, pictures."""
    runs = digits.runs()
    table = method_rows(runs, digits.BASELINE)
    first = next(iter(runs[digits.BASELINE].values()))
    return "\n\n".join(
        (
            f"![Digits: SA against RA, Hscore against cost]({link(page, SCORES)})",
            markdown_table(table, digits.BASELINE, without=("seconds", "seeds")),
            " ".join(
                (
                    statement(table, digits.BASELINE),
                    *against(method_rows(runs, digits.OURS), digits.OURS),
                    _random_sentence(runs),
                )
            ),
            f"{first['train_size']} training images, {_epochs(runs)}, {len(table[0].seeds)} seeds. "
            f"{legend(digits.BASELINE, seconds=False)} Made by `python -m bench.digits` "
            f"({rows.origin(first)}).",
            f"![Digits: accuracy under each corruption]({link(page, CORRUPTIONS)})",
        )
    )


def _epochs(runs: Runs) -> str:
    """Say the baseline's epochs, and those of the rows that differ."""
    epochs = {variant: next(iter(of_seed.values()))["epochs"] for variant, of_seed in runs.items()}
    usual = epochs[digits.BASELINE]
    others = [f"{variant}: {count}" for variant, count in epochs.items() if count != usual]
    return f"{usual} epochs" + (f" ({', '.join(others)})" if others else "")


def _random_sentence(runs: Runs) -> str:
    """Say how far choosing by entropy is ahead of choosing at random, with its interval."""
    by_entropy, at_random = (
        {seed: row["hscore"] for seed, row in runs[variant].items()}
        for variant in (digits.OURS, "EntProp, random rows")
    )
    gain = paired(by_entropy, at_random)
    assert gain is not None and gain.low is not None and gain.high is not None
    clear = corrected({"": gain})[""].significant
    verdict = "a clear difference" if clear else UNCLEAR
    return (
        f"Against choosing the rows at random, choosing them by entropy scores {gain.mean:+.1f} "
        f"({100 * CONFIDENCE:.0f} % interval {gain.low:+.1f} to {gain.high:+.1f}) here: {verdict}."
    )


def _draw_scores(path: Path) -> None:
    draw_comparison(path, method_rows(digits.runs(), digits.BASELINE))


def _draw_corruptions(path: Path) -> None:
    """Draw the accuracy of each method under each corruption, mean of severities and seeds."""
    runs = digits.runs()
    kinds = list(next(iter(next(iter(runs.values())).values()))["corruptions"])
    means = {
        variant: [
            statistics.fmean(statistics.fmean(row["corruptions"][kind]) for row in of_seed.values())
            for kind in kinds
        ]
        for variant, of_seed in runs.items()
    }
    draw_heat_map(path, means, kinds, title="accuracy (%), mean of the severities")


class Part(NamedTuple):
    """Hold a part of a page: what it says there, and the command that writes its rows."""

    section: Callable[[Path], str]
    command: str

    def text(self, page: Path) -> str:
        """Return what `page`, a path from the root, says."""
        try:
            return self.section(page)
        except FileNotFoundError:
            return f"Not measured yet: `{self.command}` writes the rows."


_DEVICES = ("cpu", "cuda")
# By the name in a part's markers; `bench.pages` finds the page.
PARTS = {
    digits.NAME: Part(digits_section, "python -m bench.digits"),
    trade.NAME: Part(trade.section, "python -m bench.digits"),
    "kernels": Part(partial(ops_table.summary, "ops_cpu"), "pytest bench/ops"),
    sweep.NAME: Part(sweep.section, "python -m bench.ops.sweep"),
    augment_table.PART: Part(augment_table.section, "pytest bench/augment"),
    corruptions_table.PART: Part(corruptions_table.section, "pytest bench/corruptions"),
    recipes_table.PART: Part(recipes_table.section, "pytest bench/recipes"),
    batches.NAME: Part(batches.section, "python -m bench.step.batches"),
    zoo_table.NAME: Part(zoo_table.section, "python -m bench.zoo.run"),
    fusion_table.NAME: Part(fusion_table.section, "pytest bench/fusion"),
    roofline_rows.NAME: Part(roofline_table.section, "python -m bench.roofline"),
    scale_table.NAME: Part(scale_table.section, "python -m bench.roofline"),
    captured_run.NAME: Part(captured_run.section, "python -m bench.captured_run"),
    studies.NAME: Part(studies.section, "python -m bench.studies"),
    ragged_memory.NAME: Part(ragged_memory.section, "python -m bench.ragged_memory"),
}
for _device in _DEVICES:
    _ops, _step = ops_table.name_of(_device), step_table.name_of(_device)
    PARTS[_ops] = Part(partial(ops_table.section, _ops), "pytest bench/ops")
    PARTS[_step] = Part(partial(step_table.section, _device), "pytest bench/step")
    PARTS[f"{_step}_summary"] = Part(partial(step_table.summary, _device), "pytest bench/step")
for _name in real_images_table.NAMES:
    PARTS[_name] = Part(partial(real_images_table.section, _name), f"python -m bench.{_name}")
# By the path from the root.
PICTURES: dict[Path, Callable[[Path], None]] = {
    SCORES: _draw_scores,
    trade.PICTURE: trade.draw,
    CORRUPTIONS: _draw_corruptions,
    **studies.PICTURES,
    **{step_table.picture_of(d): partial(step_picture.draw, d) for d in _DEVICES},
}
for _name in real_images_table.NAMES:
    _scores, _corruptions = real_images_table.pictures_of(_name)
    PICTURES[_scores] = partial(real_images_table.draw_scores, _name)
    PICTURES[_corruptions] = partial(real_images_table.draw_corruptions, _name)


def main() -> None:
    """Draw every picture that has rows, and rewrite every part in the page that holds it."""
    for path, draw in PICTURES.items():
        with contextlib.suppress(FileNotFoundError):
            draw(ROOT / path)
    for name, part in PARTS.items():
        replace(name, part.text(page_of(name)))


if __name__ == "__main__":
    main()

"""``python -m bench.report``: draw the committed rows, write their tables into README and docs."""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bench import captured_run, digits, rows
from bench.corruptions import table as corruptions_table
from bench.ops import sweep
from bench.ops import table as ops_table
from bench.recipes import table as recipes_table
from bench.step import batches
from bench.step import table as step_table
from entprop_fast.lab.experiments.comparison.comparison_plot import draw_comparison
from entprop_fast.lab.experiments.comparison.comparison_tables import legend, markdown_table
from entprop_fast.lab.experiments.comparison.method_rows import against, method_rows, statement
from entprop_fast.lab.experiments.statistics import CONFIDENCE, UNCLEAR, corrected, paired
from entprop_fast.lab.report.pictures import draw_heat_map

Runs = dict[str, dict[int, rows.Row]]  # variant, seed

ROOT = Path(__file__).resolve().parent.parent
IMAGES = Path("docs/images")


def digits_section() -> str:
    """The README's digits part, from the rows of `bench.digits`; draws its pictures."""
    measured = rows.read(digits.NAME)
    runs: dict[str, dict[int, rows.Row]] = {}
    for row in measured:
        runs.setdefault(row["variant"], {})[row["seed"]] = row
    table = method_rows(runs, digits.BASELINE)
    draw_comparison(ROOT / IMAGES / "digits.png", table)
    _draw_corruptions(ROOT / IMAGES / "digits_corruptions.png", runs)
    first = measured[0]
    return "\n\n".join(
        (
            f"![Digits: SA against RA, Hscore against cost]({IMAGES}/digits.png)",
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
            f"![Digits: accuracy under each corruption]({IMAGES}/digits_corruptions.png)",
        )
    )


def _epochs(runs: Runs) -> str:
    """The baseline's, and those of the rows that differ."""
    epochs = {variant: next(iter(of_seed.values()))["epochs"] for variant, of_seed in runs.items()}
    usual = epochs[digits.BASELINE]
    others = [f"{variant}: {count}" for variant, count in epochs.items() if count != usual]
    return f"{usual} epochs" + (f" ({', '.join(others)})" if others else "")


def _random_sentence(runs: Runs) -> str:
    """How far choosing by entropy is ahead of choosing at random, with its interval."""
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


def _draw_corruptions(path: Path, runs: Runs) -> None:
    """Accuracy of each method under each corruption, mean of severities and seeds."""
    kinds = list(next(iter(next(iter(runs.values())).values()))["corruptions"])
    means = {
        variant: [
            statistics.fmean(statistics.fmean(row["corruptions"][kind]) for row in of_seed.values())
            for kind in kinds
        ]
        for variant, of_seed in runs.items()
    }
    draw_heat_map(path, means, kinds, title="accuracy (%), mean of the severities")


# Page to its sections.
SECTIONS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        digits.NAME: digits_section,
        "kernels": partial(ops_table.summary, ops_table.name_of("cpu")),
        **{step_table.name_of(d): partial(step_table.summary, d) for d in ("cpu", "cuda")},
        step_table.CAPTURED: partial(step_table.captured, "docs/step/"),
    },
    "docs/kernels/dual_batch_norm_gpu.md": {sweep.NAME: sweep.section},
    "docs/evaluation.md": {corruptions_table.PART: corruptions_table.section},
    "docs/data.md": {recipes_table.PART: recipes_table.section},
    "docs/kernels/README.md": {
        name: partial(ops_table.section, name) for name in map(ops_table.name_of, ("cpu", "cuda"))
    },
    "docs/step/README.md": {
        **{step_table.name_of(d): partial(step_table.section, d) for d in ("cpu", "cuda")},
        batches.NAME: batches.section,
        captured_run.NAME: captured_run.section,
        step_table.CAPTURED: step_table.captured,
    },
}


def main() -> None:
    """Rewrite every section of every page between its two markers."""
    for page, sections in SECTIONS.items():
        text = (ROOT / page).read_text()
        for name, section in sections.items():
            begin, end = (
                f"<!-- {name}: written by `python -m bench.report` -->",
                f"<!-- /{name} -->",
            )
            before, found, rest = text.partition(begin)
            _, closed, after = rest.partition(end)
            if not (found and closed):
                raise SystemExit(f"{page} has no section {begin} ... {end}")
            text = f"{before}{begin}\n{section()}\n{end}{after}"
        (ROOT / page).write_text(text)


if __name__ == "__main__":
    main()

"""``python -m bench.report``: draw the committed rows, write their tables into README and docs."""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from bench import digits, rows
from bench.ops import table

ROOT = Path(__file__).resolve().parent.parent
IMAGES = Path("docs/images")


def digits_section() -> str:
    """The README's digits part, from the rows of `bench.digits`; draws its picture."""
    measured = rows.read(digits.NAME)
    by_variant = {v: [row for row in measured if row["variant"] == v] for v in digits.VARIANTS}
    picture = IMAGES / "digits.png"
    _draw_digits(by_variant, ROOT / picture)
    first = measured[0]
    base = {row["seed"]: row["hscore"] for row in by_variant["vanilla"]}
    lines = [
        f"![Digits: Hscore per method, accuracy per corruption]({picture})",
        "",
        "| method | SA | RA | Hscore | Hscore over vanilla | passes over the data |",
        "|---|---|---|---|---|---|",
    ]
    for variant, runs in by_variant.items():
        gains = [row["hscore"] - base[row["seed"]] for row in runs]
        cells = [_spread([row[key] for row in runs]) for key in ("sa", "ra", "hscore")]
        over = "" if variant == "vanilla" else f"{_spread(gains)}, {_wins(gains)}"
        lines.append(f"| {variant} | {' | '.join(cells)} | {over} | {runs[0]['cost']:.0f} |")
    lines += [
        "",
        f"{first['train_size']} training images, {first['epochs']} epochs each, mean ± standard "
        f"deviation over {len(by_variant['vanilla'])} seeds, percent; SA: clean test images, RA: "
        "mean over 10 corruptions x 5 severities, Hscore: their harmonic mean. "
        f"{_random_sentence(by_variant)} "
        f"Made by `python -m bench.digits` ({first['machine']}; {first['versions']}; "
        f"{first['git']}).",
    ]
    return "\n".join(lines)


def _random_sentence(by_variant: dict[str, list[rows.Row]]) -> str:
    """How far choosing by entropy is ahead of choosing at random, with its paired error."""
    by_entropy, at_random = by_variant["EntProp"], by_variant["EntProp, random rows"]
    gains = [a["hscore"] - b["hscore"] for a, b in zip(by_entropy, at_random, strict=True)]
    mean, error = statistics.mean(gains), statistics.stdev(gains) / len(gains) ** 0.5
    verdict = "no clear difference" if abs(mean) < 2 * error else "a clear difference"
    return (
        f"Against choosing the rows at random, choosing them by entropy scores {mean:+.1f} ± "
        f"{error:.1f} (standard error) here: {verdict}."
    )


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def _wins(gains: list[float]) -> str:
    return f"{sum(gain > 0 for gain in gains)}/{len(gains)} seeds"


def _draw_digits(by_variant: dict[str, list[rows.Row]], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=(1, 1.8))
    _draw_hscores(left, by_variant)
    _draw_corruptions(right, by_variant)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_hscores(axes: Axes, by_variant: dict[str, list[rows.Row]]) -> None:
    for position, (variant, runs) in enumerate(by_variant.items()):
        scores = [row["hscore"] for row in runs]
        bar = axes.bar(position, statistics.mean(scores), alpha=0.6, label=variant)
        axes.plot([position] * len(scores), scores, "o", color=bar[0].get_facecolor(), ms=4)
    axes.set_xticks(range(len(by_variant)), [v.replace(", ", ",\n") for v in by_variant])
    axes.set_ylabel("Hscore (%), dots: seeds")
    lowest = min(row["hscore"] for runs in by_variant.values() for row in runs)
    axes.set_ylim(bottom=10 * (lowest // 10) - 10)


def _draw_corruptions(axes: Axes, by_variant: dict[str, list[rows.Row]]) -> None:
    kinds = list(next(iter(by_variant.values()))[0]["corruptions"])
    width = 0.8 / len(by_variant)
    for offset, (variant, runs) in enumerate(by_variant.items()):
        means = [
            statistics.mean(statistics.mean(row["corruptions"][kind]) for row in runs)
            for kind in kinds
        ]
        shift = (offset - (len(by_variant) - 1) / 2) * width
        places = [index + shift for index in range(len(kinds))]
        axes.bar(places, means, width, alpha=0.6, label=variant)
    axes.set_xticks(range(len(kinds)), kinds, rotation=30, ha="right")
    axes.set_ylabel("accuracy (%), mean of 5 severities")
    axes.legend(fontsize=8, ncols=len(by_variant), loc="lower center", bbox_to_anchor=(0.5, 1))


# Page to its sections.
SECTIONS: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {
        digits.NAME: digits_section,
        "kernels": partial(table.summary, table.name_of("cpu")),
    },
    "docs/kernels/README.md": {
        name: partial(table.section, name) for name in map(table.name_of, ("cpu", "cuda"))
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

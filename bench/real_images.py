"""Compare methods and augmentations on a set of real images, at equal passes, and keep the rows.

A thin caller of ``python -m entprop_fast.compare``, whose flags it takes as well, in two steps: the
rows of `LABELS`, then EntProp over those two augmentations that have the highest mean Hscore (or
over those that ``--best`` names). Interrupted anywhere, what has finished is in the rows, and the
same command goes on with those that are missing, after other commits and on other machines too: a
row says where it was first kept. Delete rows, and the folder of the runs, to measure anew.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench import rows
from entprop_fast.lab.cli import compare
from entprop_fast.lab.experiments.comparison.plan import read_summary
from entprop_fast.lab.experiments.comparison.variants import parse
from entprop_fast.methods import METHODS

BASELINE, OURS = "vanilla", "EntProp"
# Augmentation to its name in the documentation.
AUGMENTATIONS = {
    "trivialaugment": "TrivialAugment",
    "augmix": "AugMix",
    "augmix:jsd=12": "AugMix + JSD",
    "prime": "PRIME",
    "pixmix": "PixMix",
}
# Row of the comparison to its name in the documentation.
LABELS = {
    "vanilla": BASELINE,
    "mixup": "MixUp",
    **{f"vanilla@{augment}": label for augment, label in AUGMENTATIONS.items()},
    **({"noisymix@augmix": "NoisyMix"} if "noisymix" in METHODS else {}),
    "free_at": "free training",
    "advprop": "AdvProp",
    "entprop": OURS,
    "entprop:eps=1/255,alpha=1/255": "EntProp, step of 1/255",  # the paper's; the recipes' is 4/255
    "entprop:score=random": "EntProp, random rows",
}
FINETUNED = "emoji_finetuned"  # from ImageNet weights: `bench.emoji_finetuned`
BEST = 2  # augmentations that EntProp is tried over
SEEDS = (0, 1, 2)
FLAGS = "--budget passes --corruptions generated --device cpu".split()

Runs = dict[str, dict[int, rows.Row]]  # label, seed
KEY = ("variant", "seed")  # of a row


def labels_of(name: str) -> dict[str, str]:
    """Return the rows of a comparison, by their names in the documentation."""
    chosen = ("vanilla", "mixup", "entprop") if name == FINETUNED else tuple(LABELS)
    return {row: LABELS[row] for row in chosen}


def over(augment: str) -> tuple[str, str]:
    """Return the row of EntProp over an augmentation, and its name in the documentation."""
    return f"entprop@{augment}", f"{OURS} + {AUGMENTATIONS[augment]}"


def main(
    name: str, arguments: Sequence[str] | None = None, *, flags: Sequence[str] | None = None
) -> int:
    """Compare on the data set of the recipe `name`; the exit code is the comparison's.

    Args:
        name: of the rows, the folder of the runs and, without `flags`, the recipe.
        arguments: flags of the comparison beyond these, and ``--best``; None: the command line's.
        flags: say recipe and data in place of `name`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--best", nargs="+", choices=AUGMENTATIONS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    given, more = parser.parse_known_args(arguments)
    out, labels = Path("runs") / name, labels_of(name)
    flags = [*(flags or ("--recipe", name)), *FLAGS, *more, "--out", str(out)]
    augmented = any("@" in row for row in labels)
    if (code := _compare(name, out, flags, labels, given.seeds)) or not augmented:
        return code
    best = given.best or best_of(read(name))
    how = "as given" if given.best else "by mean Hscore"
    print(f"EntProp over {', '.join(AUGMENTATIONS[one] for one in best)} ({how})", flush=True)
    return _compare(name, out, flags, labels | dict(map(over, best)), given.seeds)


def _compare(
    name: str, out: Path, flags: Sequence[str], labels: Mapping[str, str], seeds: Sequence[int]
) -> int:
    """Run what has no row yet, and keep what has finished, also where something has not."""
    _keep(name, out, labels)
    kept = read(name) if rows.there(name) else {}
    missing: dict[tuple[int, ...], list[str]] = {}  # rows by the seeds that they lack
    for row, label in labels.items():
        if lacking := tuple(seed for seed in seeds if seed not in kept.get(label, {})):
            missing.setdefault(lacking, []).append(row)
    for lacking, of_seeds in missing.items():
        code = compare.main([*flags, "--seeds", *map(str, lacking), "--methods", *of_seeds])
        _keep(name, out, labels)
        if code:
            return code
    return 0


def _keep(name: str, out: Path, labels: Mapping[str, str]) -> None:
    """Put what has finished among the committed rows."""
    if found := finished(out, {**labels, **dict(map(over, AUGMENTATIONS))}):
        print(rows.keep_stamped(name, found, by=KEY))


def finished(out: Path, labels: Mapping[str, str]) -> list[rows.Row]:
    """Make a row for each run that has finished in the comparison's folder."""
    found = []
    for variant, label in labels.items():
        begin = f"{parse(variant).slug}-"
        seeds = [
            one.name.removeprefix(begin) for one in out.glob("*") if one.name.startswith(begin)
        ]
        for seed in sorted(int(one) for one in seeds if one.isdecimal()):
            if (summary := read_summary(out / f"{begin}{seed}")) is not None:
                summary.pop("folder", None)
                found.append({"variant": label, **summary})
    return found


def by_label(found: Iterable[rows.Row], labels: Mapping[str, str] = LABELS) -> Runs:
    """Group rows by the documentation's name and the seed; names without rows are empty."""
    runs: Runs = {label: {} for label in labels.values()}
    for row in found:
        runs.setdefault(row["variant"], {})[row["seed"]] = row
    return runs


def best_of(runs: Runs) -> list[str]:
    """Return the augmentations of the highest mean Hscores, the best one first."""
    means = {
        augment: statistics.fmean(row["hscore"] for row in runs[label].values())
        for augment, label in AUGMENTATIONS.items()
        if runs[label]
    }
    return sorted(means, key=lambda augment: -means[augment])[:BEST]


def read(name: str) -> Runs:
    """Return the committed rows.

    Raises:
        FileNotFoundError: nothing was measured.
    """
    return by_label(rows.read(name), labels_of(name))


if __name__ == "__main__":
    sys.exit("python -m bench.fashion_mnist, bench.emoji or bench.emoji_finetuned")

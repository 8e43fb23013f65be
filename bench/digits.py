"""Compare the methods on digits and keep the rows: ``python -m bench.digits``.

A thin caller of ``python -m entprop_fast.compare``, whose flags it takes as well. An interrupted
one continues; another commit measures anew.
"""

import json
import sys
from pathlib import Path

from bench import rows
from entprop_fast.lab.cli import compare

NAME = "digits"
BASELINE, OURS = "vanilla", "EntProp"
# Row of the comparison to its name in the documentation. Free training's four replays of a batch
# are four passes: 15 epochs of it cost what 60 of plain training do.
LABELS = {
    "vanilla": "vanilla",
    "mixup": "MixUp",
    "mixprop": "MixProp",
    "fast_advprop": "Fast AdvProp",
    "advprop": "AdvProp",
    "entprop": OURS,
    "entprop_pipelined": "EntProp, pipelined",
    "entprop:score=random": "EntProp, random rows",
    "free_at:epochs=15": "free training",
}
FLAGS = "--recipe digits --seeds 0 1 2 3 4 --train-size 200 --device cpu".split()


def main() -> int:
    """Compare, and write a row for each run; the exit code is the comparison's."""
    out = Path("runs") / f"{NAME}-{rows.stamp()['git']}"
    flags = [*FLAGS, "--methods", *LABELS, *sys.argv[1:], "--out", str(out)]
    if code := compare.main(flags):
        return code
    print(rows.write(NAME, labelled(json.loads((out / "compare.json").read_text()))))
    return 0


def labelled(comparison: rows.Row) -> list[rows.Row]:
    """Make a row for each run of a ``compare.json``, under the docs' name of its method."""
    return [
        {"variant": LABELS.get(method["name"], method["name"])}
        | {name: value for name, value in run.items() if name != "folder"}
        for method in comparison["methods"]
        for run in method["runs"]
    ]


def runs() -> dict[str, dict[int, rows.Row]]:
    """Return the committed rows by method and seed."""
    found: dict[str, dict[int, rows.Row]] = {}
    for row in rows.read(NAME):
        found.setdefault(row["variant"], {})[row["seed"]] = row
    return found


if __name__ == "__main__":
    sys.exit(main())

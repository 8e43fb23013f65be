"""Run studies on Fashion-MNIST and keep their tables: ``python -m bench.studies``.

A thin caller of ``python -m entprop_fast.study``, whose flags it takes as well: 2,000 training
images, 20 epochs, 3 seeds. An interrupted study goes on; one whose table is kept already is not run
again. Delete its row, and the folder of its runs, to measure anew.
"""

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from bench import rows
from bench.pages import link
from entprop_fast.lab.cli import study
from entprop_fast.lab.experiments.studies import STUDIES
from entprop_fast.lab.experiments.studies.form import TABLE_JSON, Table, markdown
from entprop_fast.lab.report.pictures import save_figure
from entprop_fast.lab.report.tables import legend

NAME = "studies"
CHOSEN = ("adds", "budget", "affine")
FLAGS = "--recipe fashion_mnist --train-size 2000 --epochs 20 --seeds 0 1 2 --device cpu".split()
FOLDER = Path("runs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run each study that has no row yet, and keep its table; the exit code is a study's.

    Args:
        arguments: flags of the study command beyond these; None: the command line's.
    """
    more = sys.argv[1:] if arguments is None else arguments
    for name in CHOSEN:
        if rows.there(NAME) and name in kept():
            print(f"{name}: its table is kept already; delete its row to measure anew")
            continue
        out = FOLDER / f"study-fashion_mnist-{name}"
        if code := study.main([name, *FLAGS, *more, "--out", str(out)]):
            return code
        row = json.loads((out / TABLE_JSON).read_text())
        print(rows.keep_stamped(NAME, [row], by=("study",)))
    return 0


def kept() -> dict[str, rows.Row]:
    """Return the row of each study that has one, by its name.

    Raises:
        FileNotFoundError: none has.
    """
    return {row["study"]: row for row in rows.read(NAME)}


def picture_of(name: str) -> Path:
    """Return the path of a study's picture, from the root."""
    return Path("docs/images") / f"study_{name}.png"


def section(page: Path) -> str:
    """Write the part of the studies: of each its question, table, sentence and picture."""
    found = kept()
    return "\n\n".join(_of_study(name, found.get(name), page) for name in CHOSEN)


def _of_study(name: str, row: rows.Row | None, page: Path) -> str:
    one = STUDIES[name]
    title = f"### {one.help} (`{name}`)"
    if row is None:
        return f"{title}\n\nNot measured yet: `python -m bench.studies` writes the rows."
    setting = row["setting"]
    about = (
        f"`--train-size {setting['train_size']} --epochs {setting['epochs']}`, "
        f"{len(setting['seeds'])} seeds. {legend(row['rows'][0])}. Corruptions: "
        f"{setting['corruption_source']}. Made by `python -m bench.studies` ({rows.origin(row)})."
    )
    picture = f"![{one.help}]({link(page, picture_of(name))})"
    return "\n\n".join((title, markdown(row["rows"]), one.sentence(row["rows"]), about, picture))


def draw(name: str, path: Path) -> None:
    """Draw a study's picture from its row.

    Raises:
        FileNotFoundError: it has none.
    """
    row = kept().get(name)
    if row is None:
        raise FileNotFoundError(f"no row of study {name}")
    figure = Figure(figsize=(9, 4), layout="constrained")
    STUDIES[name].draw(figure, Table(row["rows"]))
    save_figure(figure, path)


PICTURES = {picture_of(name): partial(draw, name) for name in CHOSEN}

if __name__ == "__main__":
    sys.exit(main())

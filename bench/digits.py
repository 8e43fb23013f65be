"""Accuracy of the methods on digits: ``python -m bench.digits`` measures the README's rows.

Every row is one run of ``python -m entprop_fast.train`` with the digits recipe; all get the same
images, epochs, batches and initial weights, and differ in the method's cost alone, which is shown.
"""

import argparse
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench import rows

TRAIN_SIZE = 200
SEEDS = range(5)
VARIANTS: dict[str, dict[str, Any]] = {
    "vanilla": {"method": "vanilla"},
    "MixUp": {"method": "mixup"},
    "EntProp": {"method": "entprop"},
    "EntProp, random rows": {"method": "entprop", "score": "random"},
}
NAME = "digits"


def measure(variant: str, seed: int, train_size: int, epochs: int | None) -> rows.Row:
    """Train one variant and return its scores."""
    from entprop_fast.engine import train
    from entprop_fast.run.recipe import resolve

    with tempfile.TemporaryDirectory() as folder:
        config = resolve(
            "digits",
            **VARIANTS[variant],
            seed=seed,
            train_size=train_size,
            epochs=epochs,
            device="cpu",
            threads=1,
            out=str(Path(folder) / "run"),
        )
        summary = asdict(train(config))
    del summary["folder"]
    return {"variant": variant} | summary


def main() -> None:
    """Measure every variant with every seed, as many at a time as there are cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train-size", type=int, default=TRAIN_SIZE)
    parser.add_argument("--epochs", type=int, help="the recipe's when left out")
    arguments = parser.parse_args()
    runs = list(product(VARIANTS, SEEDS))
    context = get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        pending = [
            pool.submit(measure, variant, seed, arguments.train_size, arguments.epochs)
            for variant, seed in runs
        ]
        results = [one.result() for one in pending]
    print(rows.write(NAME, results))


if __name__ == "__main__":
    main()

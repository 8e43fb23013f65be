"""Time the steps of a comparison's rows: ``python -m bench.real_images_speed fashion_mnist``.

Each row takes a step of its own run, batch and augmentation included, in turns with the others, on
one core; times are CPU times, on which other work on the machine has little influence. The runs of
`bench.real_images` stand side by side and are timed by nobody.
"""

import statistics
import sys
import time

import torch

from bench import real_images, rows
from bench.real_images import AUGMENTATIONS, BASELINE, labels_of, over
from bench.timing import Timer, take_turns
from entprop_fast.lab.experiments.comparison.plan import resolve_runs
from entprop_fast.lab.experiments.comparison.variants import parse
from entprop_fast.lab.training.allocator import keep_freed_memory
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import rehearse

ROUNDS = 21


def rows_name(name: str) -> str:
    """Return under what name a comparison's speeds are kept."""
    return f"{name}_speed"


def main(name: str, rounds: int = ROUNDS) -> None:
    """Time a step of each row of the comparison `name` that is measured, and keep the medians."""
    known, there = {**labels_of(name), **dict(map(over, AUGMENTATIONS))}, real_images.read(name)
    labels = {row: label for row, label in known.items() if there.get(label)}
    variants = [parse(row) for row in labels]
    runs = resolve_runs(name, variants, [0], {"device": "cpu", "threads": 1})
    timers = {labels[run.variant]: _timer(run.config) for run in runs}
    samples = take_turns(timers, rounds=rounds)
    batch = runs[0].config.batch_size
    print(rows.write(rows_name(name), [_row(one, samples, batch) for one in samples]))


def _row(label: str, samples: dict[str, list[float]], batch: int) -> rows.Row:
    pairs = zip(samples[label], samples[BASELINE], strict=True)
    return {
        "variant": label,
        "times_vanilla": statistics.median(one / plain for one, plain in pairs),
        "images_per_second": batch / statistics.median(samples[label]),
    }


def _timer(config: Config) -> Timer:
    """Make a call that takes a step of the run and returns its CPU seconds."""
    trainer = rehearse(config, step=False)
    batches = iter(trainer.loader.epoch(0))

    def seconds() -> float:
        began = time.process_time()
        trainer.method(*next(batches))
        return time.process_time() - began

    seconds()  # what the first step prepares
    return seconds


if __name__ == "__main__":
    if sys.argv[1:] not in [[one] for one in ("fashion_mnist", "emoji")]:
        sys.exit("python -m bench.real_images_speed fashion_mnist, or emoji")
    keep_freed_memory()
    torch.set_num_threads(1)
    main(sys.argv[1])

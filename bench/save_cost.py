"""Time what a checkpoint costs the loop that trains: written by the loop, or in the background.

Run: ``python -m bench.save_cost``. Each contender saves once and takes STEPS steps; the first only
takes them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from bench.timing import Contender, Timer, take_turns
from entprop_fast.lab import checkpoint
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.engine import rehearse
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.lab.training.trainer import Trainer

STEPS, ROUNDS = 2, 15


def main(arch: str = "wrn16_4") -> None:
    """Print the medians, and what each way of saving adds to the steps."""
    torch.set_num_threads(1)
    config = recipe.resolve("digits", arch=arch, batch_size=16, device="cpu", threads=1)
    trainer = rehearse(config)
    batches = _batches(trainer)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def steps() -> Sequence[Tensor]:
            return [trainer.method(*next(batches)).loss for _ in range(STEPS)]

        def by_the_loop() -> Sequence[Tensor]:
            checkpoint.save(folder, trainer.state_dict())
            return steps()

        def in_background() -> Sequence[Tensor]:
            trainer.saver.save(trainer.state_dict, needed=False)
            return steps()

        with trainer.saver.open(RunFolder(folder)):
            contenders = {"no save": steps, "loop": by_the_loop, "background": in_background}
            timers = {name: _timer(call, trainer) for name, call in contenders.items()}
            samples = take_turns(timers, rounds=ROUNDS)
        megabytes = (folder / checkpoint.CURRENT).stat().st_size / 1e6
    medians = {name: 1e3 * statistics.median(values) for name, values in samples.items()}
    Reporter().say(f"{arch}: {megabytes:.0f} MB, {STEPS} steps take {medians['no save']:.0f} ms")
    for name in ("loop", "background"):
        Reporter().say(f"{name}: {medians[name] - medians['no save']:.0f} ms more")


def _timer(call: Contender, trainer: Trainer) -> Timer:
    def seconds() -> float:
        began = time.perf_counter()
        call()
        spent = time.perf_counter() - began
        trainer.saver.wait()  # what is still being written is not the next contender's
        return spent

    return seconds


def _batches(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in range(1000):
        yield from trainer.loader.epoch(epoch)


if __name__ == "__main__":
    main(*sys.argv[1:])

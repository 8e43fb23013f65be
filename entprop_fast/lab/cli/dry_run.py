"""Say what a run would be and cost, without training it."""

from __future__ import annotations

from collections.abc import Iterator

from entprop_fast.lab.experiments.run_costs import rows_per_epoch
from entprop_fast.lab.report.progress import Reporter, duration
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import rehearse
from entprop_fast.lab.training.errors import bad_input
from entprop_fast.lab.training.step_cost import StepCost, measure
from entprop_fast.lab.training.trainer import Trainer


def lines(config: Config, reporter: Reporter) -> Iterator[str]:
    """Yield the settings as a recipe, then what one measured step says of the whole run.

    Raises:
        UsageError, RunFailed: whatever the run would refuse.
    """
    with reporter.waiting("making the run"):
        trainer = rehearse(config, step=False)
    yield recipe.to_toml(config).rstrip()
    with reporter.waiting("measuring a step"), bad_input():
        cost = measure(trainer)
    yield from _said(trainer, cost)


def _said(trainer: Trainer, cost: StepCost) -> Iterator[str]:
    config, images = trainer.config, trainer.images.num_train
    passes = config.epochs * rows_per_epoch(trainer) / images
    yield f"cost: {passes:.2f} passes over {images} training images, in {trainer.steps} steps"
    rows = trainer.accumulation.batches * trainer.loader.batch_size
    how = "replayed as a CUDA graph" if cost.captured else "not captured"
    where = f"of {trainer.device}" if trainer.device.type == "cuda" else "of this process"
    yield f"one step: {1000 * cost.seconds:.3g} ms for {rows} images ({how})"
    yield f"memory: {cost.memory / 2**20:.0f} MiB {where}, the most so far"
    training = duration(cost.seconds * trainer.steps)
    scores = duration(cost.epoch_seconds * config.epochs)
    yield (
        f"estimated: {training} of steps and {scores} of accuracies after epochs; reading image "
        "files and the final evaluation may add to that"
    )
    yield "nothing was trained, nothing was written"

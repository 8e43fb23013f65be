"""Compute what runs cost before they are trained: rows that go through the network."""

from __future__ import annotations

import gc
from dataclasses import replace

import torch

from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import rehearse
from entprop_fast.lab.training.trainer import Trainer


def passes(config: Config) -> float:
    """Return the run's cost in passes over the training images; its first step is tried.

    Raises:
        UsageError: whatever the run would refuse.
    """
    capture = "off" if config.capture == "auto" else config.capture  # one step is not worth a graph
    trainer = rehearse(replace(config, capture=capture))
    cost = config.epochs * rows_per_epoch(trainer) / trainer.images.num_train
    if trainer.device.type == "cuda":
        del trainer
        gc.collect()  # a method and its captures refer to each other
        torch.cuda.empty_cache()
    return cost


def rows_per_epoch(trainer: Trainer) -> float:
    """Return the rows that go through the network in an epoch of the run."""
    return sum(rows * trainer.method.cost(rows) for rows in _batches(trainer))


def plain_rows(trainer: Trainer) -> int:
    """Return the same for plain training."""
    return sum(_batches(trainer))


def _batches(trainer: Trainer) -> list[int]:
    """Return the rows of each batch of an epoch."""
    loader = trainer.loader
    sizes = [loader.batch_size] * len(loader)
    left = loader.size - loader.batch_size * (len(loader) - 1)
    sizes[-1] = min(loader.batch_size, left)
    return sizes

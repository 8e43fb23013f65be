"""Take the state of a run for a checkpoint, and put it back."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import nn

from entprop_fast.lab import job
from entprop_fast.lab.data import Loader
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import rank_states, run_record
from entprop_fast.lab.training.best_network import BestNetwork
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.deploy import NetworkSpec
from entprop_fast.lab.training.ema import AveragedWeights
from entprop_fast.lab.training.meter import Meter
from entprop_fast.lab.training.optim import plain_state
from entprop_fast.lab.training.rollback import Rollbacks
from entprop_fast.lab.training.run_folder import Row
from entprop_fast.lab.training.run_identity import Identity
from entprop_fast.methods import Method

State = dict[str, Any]


class Run(Protocol):
    """Declare what a run's state is made of; a `Trainer` has it."""

    config: Config
    spec: NetworkSpec
    identity: Identity
    device: torch.device
    loader: Loader
    reporter: Reporter
    model: nn.Module
    optimizer: torch.optim.Optimizer
    method: Method
    average: AveragedWeights | None
    best: BestNetwork | None
    rollbacks: Rollbacks
    meter: Meter
    epoch: int
    batch: int
    rows: list[Row]
    train_seconds: float
    seconds_before: float
    started: float

    @property
    def seconds(self) -> float:
        """Time since the run began."""


def state_of(run: Run) -> State:
    """Return everything that the rest of the run depends on, and its record so far."""
    return {
        "config": asdict(run.config),
        "network": asdict(run.spec),
        "identity": run.identity,
        "device": run.device.type,
        "epoch": run.epoch,
        "batch": run.batch,
        "meter": run.meter.of_all().state_dict(),
        "rows": run.rows,
        "rollbacks": run.rollbacks.state_dict(),
        "train_seconds": run.train_seconds,
        "seconds": run.seconds,
        "model": run.model.state_dict(),
        "optimizer": plain_state(run.optimizer),
        **rank_states.gathered(run.method, run.device),
        **({} if run.average is None else {"ema": run.average.state_dict()}),
        **({} if run.best is None else {"best": run.best.state_dict()}),
    }


def put_back(run: Run, state: State) -> None:
    """Continue where `state_of` was taken, on the same kind of device or another.

    Raises:
        ValueError: the state is not one of this version's.
    """
    try:
        run_record.check(state, epochs=run.config.epochs, batches=len(run.loader))
        run.model.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        rank_states.load(state, run.method, run.device, run.reporter.say, seed=run.config.seed)
        if run.average is not None:
            run.average.load_state_dict(state["ema"])
        if run.best is not None:
            run.best.load_state_dict(state["best"], state["epoch"])
        run.meter = Meter()
        if job.current().is_main:  # whose sums are those of all from here on
            run.meter.load_state_dict(state["meter"])
        if "rollbacks" in state:  # not in an earlier version's
            run.rollbacks.load_state_dict(state["rollbacks"])
        run.epoch, run.batch, run.rows = state["epoch"], state["batch"], state["rows"]
        run.train_seconds = state["train_seconds"]
        run.seconds_before, run.started = state["seconds"], time.monotonic()
    except Exception as error:  # anybody may have written it
        raise ValueError(f"the checkpoint is another version's: {error!r}") from error

"""Save a run: when it is due, and so that nothing of it is lost."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from entprop_fast.lab import checkpoint, stopping
from entprop_fast.lab.training.best_network import BestNetwork
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.deploy import NetworkSpec
from entprop_fast.lab.training.run_folder import BEST, RunFolder
from entprop_fast.lab.training.save_times import SaveTimes

State = dict[str, Any]


class Saver:
    """Keep a run's checkpoints in its folder.

    Args:
        config: settings of the run.
        spec: says how its network is built again.
    """

    def __init__(self, config: Config, spec: NetworkSpec) -> None:
        self._about = {"config": asdict(config), "network": asdict(spec)}
        self._times = SaveTimes(config.save_every)
        self._folder: RunFolder | None = None

    @contextlib.contextmanager
    def open(self, folder: RunFolder) -> Iterator[None]:
        """Save to `folder` within."""
        self._folder = folder
        yield

    def due(self, step: int) -> bool:
        """Return whether to save within an epoch, when `step` steps of the run are done."""
        return self._times.due(step)

    def save(self, state: Callable[[], State]) -> None:
        """Save what `state` returns."""
        assert self._folder is not None
        began = time.monotonic()
        checkpoint.save(self._folder.path, state())
        stopping.reserve(2 * (time.monotonic() - began))

    def keep_best(self, best: BestNetwork | None) -> None:
        """Write the best network, where there is one."""
        assert self._folder is not None
        if best is not None and best.epoch:
            checkpoint.write(self._folder / BEST, self._about | best.state_dict())

"""Save and load a run whose parameters are split, with torch's distributed checkpoints (DCP).

Not imported along with the package: torch takes a second to import its own part.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from entprop_fast.parallel.flat import in_one
from entprop_fast.parallel.rows import world_size
from entprop_fast.sharding import is_partitioned, is_split

_LAST = ".metadata"  # which DCP writes when all else is there


class Saved(Protocol):
    """Hold what a run consists of: a method with its model and optimizer."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def state_dict(self) -> dict[str, Any]:
        """Return what this process needs beside model and optimizer."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""

    def gathered_state(self, states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Join the states of all processes to that of one."""

    def dealt_state(self, state: dict[str, Any], rank: int, world: int) -> dict[str, Any]:
        """Deal the state of one process out to one of several."""


def save_sharded(method: Saved, folder: str | os.PathLike[str]) -> None:
    """Save a run from all processes, each its own part; all of them call it, between steps.

    Buffers are those of rank 0, which the next step starts from in all processes.

    Args:
        method: with its model and optimizer.
        folder: that all processes see. A checkpoint is whole when it has a file ``.metadata``.

    Raises:
        FileExistsError: `folder` holds a checkpoint already: each has a folder of its own, so that
            none is lost where a later one fails.
        ValueError: the optimizer is a `ZeroRedundancyOptimizer`.
    """
    folder = Path(folder)
    _check_optimizer(method.optimizer)
    if (folder / _LAST).exists():
        raise FileExistsError(f"folder {folder} holds a checkpoint: give each a folder of its own")
    folder.mkdir(parents=True, exist_ok=True)
    own = {"world": world_size(), "state": method.state_dict()}
    torch.save(own, folder / f"method-{_rank()}.pt")
    model: dict[str, Any] = get_model_state_dict(method.model)
    # DCP writes one process's of what all have, whoever that is.
    whole = {name: v.clone() for name, v in model.items() if not is_split(v)}
    in_one(whole.values(), _broadcast)
    save({"model": model | whole, "optimizer": _state_of(method)}, checkpoint_id=folder)


def load_sharded(method: Saved, folder: str | os.PathLike[str]) -> None:
    """Load what `save_sharded` wrote; all processes call it, before the first step.

    With as many processes as before the run goes on to the bit. For another number what waits for
    the next step is dealt out anew, and generators that were not alike stay as they are here.

    Args:
        method: with its model and optimizer, made as those that were saved; sharded otherwise, or
            not at all, is fine.
        folder: of trusted origin, since DCP reads it with pickle. One process may load it without a
            process group.

    Raises:
        FileNotFoundError: `folder` holds no whole checkpoint.
        ValueError: the optimizer is a `ZeroRedundancyOptimizer`.

    Warns:
        RuntimeWarning: generators were not loaded.
    """
    folder = Path(folder)
    _check_optimizer(method.optimizer)
    if not (folder / _LAST).exists():
        raise FileNotFoundError(f"folder {folder} holds no whole checkpoint, as it has no {_LAST}")
    saved = set(FileSystemReader(folder).read_metadata().state_dict_metadata)
    method.optimizer.zero_grad(set_to_none=True)
    method.optimizer.state.clear()
    optimizer = get_optimizer_state_dict(method.model, method.optimizer)  # of every parameter
    # A parameter that no gradient had reached had no state, and a zero is not the same.
    optimizer["state"] = {
        name: kept
        for name, values in _items(optimizer["state"])
        if (kept := {k: v for k, v in values.items() if f"optimizer.state.{name}.{k}" in saved})
    }
    model = get_model_state_dict(method.model)
    load({"model": model, "optimizer": optimizer}, checkpoint_id=folder)
    set_model_state_dict(method.model, model)
    lenient = StateDictOptions(strict=False)
    set_optimizer_state_dict(method.model, method.optimizer, optimizer, options=lenient)
    _load_own(method, folder)


def _load_own(method: Saved, folder: Path) -> None:
    """Load the method's state of this process, or its share of those of another number."""
    first, here = _load(folder, 0), method.state_dict()
    world = world_size()
    if first["world"] == world:
        method.load_state_dict(_load(folder, _rank())["state"])
        return
    states = [_load(folder, rank)["state"] for rank in range(first["world"])]
    state = method.dealt_state(method.gathered_state(states), _rank(), world)
    if state["generator"] is None and here["generator"] is not None:
        state["generator"] = here["generator"]
        warnings.warn(
            f"{folder} is of {first['world']} processes, each with a generator of its own, and "
            f"{world} go on: theirs stay as they are",
            RuntimeWarning,
            stacklevel=3,
        )
    method.load_state_dict(state)


def _load(folder: Path, rank: int) -> dict[str, Any]:
    own: dict[str, Any] = torch.load(
        folder / f"method-{rank}.pt", weights_only=True, map_location="cpu"
    )
    return own


def _state_of(method: Saved) -> dict[str, Any]:
    """Return the optimizer's state by parameter names; before the first step, none."""
    none = not method.optimizer.state
    state: dict[str, Any] = get_optimizer_state_dict(method.model, method.optimizer)
    if none:  # torch has made some
        method.optimizer.state.clear()
        state["state"] = {}
    return state


def _items(states: Any) -> list[tuple[str, dict[str, Any]]]:
    return list(states.items())


def _check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    if is_partitioned(optimizer):
        raise ValueError(
            f"optimizer is a {type(optimizer).__name__}, whose parameters are whole: call its "
            "consolidate_state_dict() on all processes and save its state_dict() on rank 0"
        )


def _rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


def _broadcast(flat: Tensor) -> None:
    if world_size() > 1:
        dist.broadcast(flat, src=0)

"""Keep in a checkpoint what each rank has of its own, and deal it out again at a resume.

``state["method"]`` and ``state["random"]`` are those of a job of one process. A job of several adds
``state["ranks"]``, a list by rank of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from entprop_fast.lab import checkpoint, job
from entprop_fast.lab.data.counter_random import fold
from entprop_fast.methods import Method

State = dict[str, Any]

_OF_ROWS = ("delta", "waiting")  # what a method's state has of its rank's own rows


def gathered(method: Method, device: torch.device) -> State:
    """Return what the ranks have of their own; all of them call this together."""
    own = {"random": checkpoint.random_state(device), "method": method.state_dict()}
    every = job.current().gather(own)
    if len(every) == 1:
        return own
    return {"random": every[0]["random"], "method": _joined(every), "ranks": every}


def load(
    state: Mapping[str, Any],
    method: Method,
    device: torch.device,
    say: Callable[[str], None],
    *,
    seed: int,
) -> None:
    """Put back what this rank had; of another number of ranks or kind of device, say so.

    A rank that was not there draws anew, by its seed, its number and the place of the run.

    Raises:
        ValueError: the ranks had rows of their own, and there were others.
    """
    now, every = job.current(), state.get("ranks", [state])
    was, known = len(every), now.rank < len(every)
    own = every[now.rank] if known else every[0]
    alike = state["device"] == device.type
    if alike and known:
        checkpoint.restore_random_state(own["random"], device)
    if not alike:
        say(f"saved on {state['device']}, continued on {device.type}: not bit for bit")
    if was != now.world:
        say(f"saved by {was} ranks, continued by {now.world}: not bit for bit")
    kept = dict(own["method"] if was == now.world else _dealt(state["method"], now, was))
    if not (alike and known):
        kept["generator"] = method.state_dict()["generator"]  # a state fits one kind of device
    elif was != now.world:
        kept["generator"] = own["method"]["generator"]
    method.load_state_dict(kept)
    if not known and method.generator is not None:
        method.generator.manual_seed(fold((seed, now.rank, state["epoch"], state["batch"])))


def _joined(every: Sequence[Mapping[str, Any]]) -> State:
    """Return the state of a method that had been one process's."""
    methods = [one["method"] for one in every]
    return methods[0] | {"rows": sum(one["rows"] for one in methods)}


def _dealt(joined: State, now: job.Job, was: int) -> State:
    """Return this rank's part of a joined state.

    Raises:
        ValueError: it has rows of ranks.
    """
    for name in _OF_ROWS:
        if joined.get(name) is not None:
            raise ValueError(
                f"the method's {name} is of {was} ranks: continue with as many, by "
                f"torchrun --nproc-per-node {was}"
            )
    return joined | {"rows": joined["rows"] if now.is_main else 0}

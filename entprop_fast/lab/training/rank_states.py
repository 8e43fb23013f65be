"""Keep in a checkpoint what each rank has of its own, and deal it out again at a resume.

``state["method"]`` and ``state["random"]`` are those of rank 0. A job of several adds
``state["ranks"]``, a list by rank of both. Another number of ranks joins and deals them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from entprop_fast.counter_random import fold
from entprop_fast.lab import checkpoint, job
from entprop_fast.lab.data.readers import seed_generators
from entprop_fast.methods import Method

State = dict[str, Any]

_SEEDS = 2**63  # of a generator


def gathered(method: Method, device: torch.device) -> State:
    """Return what the ranks have of their own; all of them call this together."""
    own = {"random": checkpoint.random_state(device), "method": method.state_dict()}
    every = job.current().gather(own)
    return own if len(every) == 1 else every[0] | {"ranks": every}


def load(
    state: Mapping[str, Any],
    method: Method,
    device: torch.device,
    say: Callable[[str], None],
    *,
    seed: int,
) -> None:
    """Put back what this rank had; of another number of ranks or kind of device, say so.

    A rank that was not there draws by the seed, its number and the place of the run; where the
    ranks are exact, as all others do.

    Raises:
        ValueError: what the ranks had of their own cannot be joined.
    """
    rank, world = job.current().rank, job.current().world
    every = state.get("ranks", [state])
    was, known = len(every), rank < len(every)
    methods = [one["method"] for one in every]
    if was == world:
        kept = methods[rank]
    else:
        say(f"saved by {was} processes, continued by {world}: not bit for bit")
        joined = method.gathered_state(methods) if was > 1 else methods[0]
        kept = method.dealt_state(joined, rank, world)
        exact = method.options.ranks == "exact"
        kept["generator"] = methods[rank if known and not exact else 0]["generator"]
    alike, draw = state["device"] == device.type, None
    if not alike:
        say(f"saved on {state['device']}, continued on {device.type}: not bit for bit")
        kept = kept | {"generator": method.state_dict()["generator"]}  # fits one kind of device
    elif known:
        checkpoint.restore_random_state(every[rank]["random"], device)
    else:
        draw = fold((seed, rank, state["epoch"], state["batch"])) % _SEEDS
        seed_generators(draw)
        torch.manual_seed(draw)  # CUDA's, too
    method.load_state_dict(kept)
    if draw is not None and method.generator is not None and method.options.ranks != "exact":
        method.generator.manual_seed(draw)

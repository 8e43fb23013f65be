"""Remember over torchrun's restarts what a job has begun: its agent keeps a store that long."""

from __future__ import annotations

import os

from torch.distributed import PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from entprop_fast.lab.job.members import current

_AGENT = "TORCHELASTIC_USE_AGENT_STORE"  # set to True where the workers' store is the agent's


def remember(what: str) -> None:
    """Note something in rank 0, for the same job after a restart."""
    if current().is_main and (store := _agents_store()) is not None:
        store.set(_key(what), "1")


def remembers(what: str) -> bool:
    """Return whether this job noted that before torchrun restarted it; all processes call this."""
    found = False
    if current().is_main and (store := _agents_store()) is not None:
        found = store.check([_key(what)])
    return current().from_main(found)


def _key(what: str) -> str:
    return f"entprop_fast/{what}"


def _agents_store() -> Store | None:
    """Connect to the agent's store, past the part of it that belongs to one attempt."""
    if os.environ.get(_AGENT) != "True":
        return None
    store, _, _ = next(rendezvous("env://"))
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    found: Store = store
    return found

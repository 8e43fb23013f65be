"""Rows of all processes together; with a single process, those of this one."""

from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """How many processes train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks: [B, ...] -> [world * B, ...].

    Every process must hold the same number of rows.
    """
    if world_size() == 1:
        return rows
    out = rows.new_empty((world_size() * len(rows), *rows.shape[1:]))
    dist.all_gather_into_tensor(out, rows.contiguous())
    return out


def own_share(ranking: Tensor) -> Tensor:
    """This process's part of a ranking that all share: every world-th entry from its rank on."""
    world = world_size()
    return ranking if world == 1 else ranking[dist.get_rank() :: world]

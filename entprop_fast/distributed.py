"""Rows of all processes together; with a single process, those of this one."""

import torch
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


def shuffle_rows(
    images: Tensor, labels: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """The rows of all processes dealt out anew, as many to each; a single process keeps its own.

    Every process draws a permutation, so that their generators stay in step, and the first one's
    counts.

    Args:
        images: [B, ...].
        labels: [B].
        generator: on the images' device.
    """
    world = world_size()
    if world == 1:
        return images, labels
    order = torch.randperm(world * len(images), generator=generator, device=images.device)
    dist.broadcast(order, src=0)
    own = own_share(order)
    return gather_rows(images)[own], gather_rows(labels)[own]

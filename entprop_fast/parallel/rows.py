"""Exchange the rows of all processes; a single process keeps its own."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist


def world_size() -> int:
    """Count the processes that train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor, held: Sequence[int]) -> Tensor:
    """Gather the rows of all processes in the order of ranks: [B, ...] -> [sum of held, ...].

    Args:
        rows: [B, ...], of the same dtype and shape but for B everywhere.
        held: how many each process has.
    """
    if world_size() == 1:
        return rows
    if len(set(held)) == 1:
        return all_gather(rows)
    padded = rows.new_zeros((max(held), *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = all_gather(padded).split(max(held))
    return torch.cat([part[:count] for part, count in zip(parts, held, strict=True)])


def own_share(ranking: Tensor, dealt: Sequence[int]) -> Tensor:
    """Return this process's part of a ranking that all share, dealt out one entry at a time.

    Args:
        ranking: [sum of dealt].
        dealt: how many each process gets; who has its number is passed over.
    """
    world = world_size()
    if world == 1:
        return ranking
    rank = dist.get_rank()
    if len(set(dealt)) == 1:
        return ranking[rank::world]
    places = [
        sum(min(count, turn) for count in dealt) + sum(count > turn for count in dealt[:rank])
        for turn in range(dealt[rank])
    ]
    return ranking[torch.tensor(places, device=ranking.device)]


def shuffle_rows(
    images: Tensor, labels: Tensor, generator: torch.Generator | None, held: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Deal out all processes' rows anew, as many as each had; a single one keeps its own.

    Every process draws a permutation, so that their generators stay in step, and the first one's
    counts.

    Args:
        images: [B, ...].
        labels: [B].
        generator: on the images' device.
        held: how many rows each process has.
    """
    if world_size() == 1:
        return images, labels
    order = torch.randperm(sum(held), generator=generator, device=images.device)
    dist.broadcast(order, src=0)
    own = own_share(order, held)
    return gather_rows(images, held)[own], gather_rows(labels, held)[own]


def all_gather(rows: Tensor) -> Tensor:
    """Gather equally many rows of all processes in the order of ranks."""
    out = rows.new_empty((world_size() * len(rows), *rows.shape[1:]))
    # Its name of old until torch 2.12.
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    gather(out, rows.contiguous())
    return out

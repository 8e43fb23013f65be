"""Train one network in all processes of a job: its replicas, seeds, batches and statistics."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist

from entprop_fast.counter_random import fold
from entprop_fast.lab import job
from entprop_fast.lab.data import Loader
from entprop_fast.lab.training.config import Config
from entprop_fast.layers import synchronise_norms
from entprop_fast.methods import Method
from entprop_fast.parallel.wrapping import replicate

_FEWEST = 2  # rows of a process, so that each norm sees more than one value
_SEEDS = 2**63  # of a generator


def is_exact(config: Config) -> bool:
    """Return whether the processes compute what one would on the whole batch."""
    return config.options.get("ranks") == "exact"


def synchronised(model: nn.Module, config: Config) -> nn.Module:
    """Let the batch norms see the rows of all processes, where the settings say so."""
    if job.current().world > 1 and (config.sync_norms or is_exact(config)):
        return synchronise_norms(model)
    return model


def replicated(model: nn.Module, config: Config) -> nn.Module:
    """Wrap the network for a method, where several processes train it; all of them call this."""
    if job.current().world == 1:
        return model
    device = next(model.parameters()).device
    device_ids = [device] if device.type == "cuda" else None
    if config.norm_stats == "broadcast":
        return replicate(model, device_ids=device_ids)
    with warnings.catch_warnings():  # torch 2.13 has another word for it, and both
        warnings.simplefilter("ignore", FutureWarning)
        return replicate(model, device_ids=device_ids, broadcast_buffers=False)


def seed_of(seed: int, config: Config) -> int:
    """Return the seed of this process's own draws: all the same where the ranks are exact."""
    rank = job.current().rank
    return seed if rank == 0 or is_exact(config) else fold((seed, rank)) % _SEEDS


def sharing(loader: Loader, device: torch.device) -> str:
    """Say how many processes train together, and whether they share out each batch."""
    said = f"{job.current().world} processes on {device.type}"
    return f"{said} share each batch of {loader.batch_size} images" if loader.world > 1 else said


def check_batches(config: Config, loader: Loader) -> None:
    """Refuse batches of which a process would have too few rows.

    Raises:
        ValueError: says which setting leaves more.
    """
    world = loader.world
    if world == 1 or is_exact(config) or loader.fewest >= _FEWEST:
        return
    if loader.batch_size // world < _FEWEST:
        raise ValueError(
            f"batch_size={config.batch_size}: the rows of all {world} processes; expected at least "
            f"{_FEWEST * world}, {_FEWEST} for each"
        )
    rest = loader.size % loader.batch_size
    raise ValueError(
        f"drop_last=False: the last batch of an epoch has {rest} rows for {world} processes, and "
        f"each needs {_FEWEST}: use drop_last=True, another batch_size than {config.batch_size}, "
        "or ranks='exact', which allows fewer"
    )


def check_mixing(config: Config, loader: Loader, method: Method) -> None:
    """Refuse a last batch that cannot be mixed, before an epoch is trained up to there.

    Raises:
        ValueError: it has one row.
    """
    mixes = [one for one in ("mixup", "cutmix") if getattr(method, one, 0.0)]
    if loader.smallest == 1 < loader.batch_size and mixes:
        beta = getattr(method, mixes[0])
        raise ValueError(
            f"drop_last=False: the last batch of an epoch has 1 row, and {mixes[0]}={beta:g} mixes "
            f"2 or more: use drop_last=True, another batch_size than {config.batch_size}, or "
            f"{mixes[0]}=0"
        )


def settle_statistics(models: Sequence[nn.Module], config: Config) -> None:
    """Average the running statistics of all processes, where the settings say so."""
    here = job.current()
    if here.world == 1 or config.norm_stats != "average":
        return
    for buffer in (one for one in _buffers(models) if one.is_floating_point()):
        dist.all_reduce(buffer)
        buffer.div_(here.world)


@contextlib.contextmanager
def same_statistics(models: Sequence[nn.Module], config: Config) -> Iterator[None]:
    """Give all processes the same running statistics within, those that count.

    Those of rank 0, or with ``norm_stats="average"`` the mean. With ``"rank"`` each process has its
    own again afterwards.
    """
    if job.current().world == 1:
        yield
        return
    buffers = _buffers(models)
    own = [one.clone() for one in buffers] if config.norm_stats == "rank" else []
    settle_statistics(models, config)
    for buffer in buffers:
        dist.broadcast(buffer, 0)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in zip(buffers if own else (), own, strict=True):
                buffer.copy_(before)


def _buffers(models: Sequence[nn.Module]) -> list[Tensor]:
    return [one for model in models for one in model.buffers()]

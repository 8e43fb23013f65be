"""Find the network inside of a DistributedDataParallel, and what a method refuses around it."""

import contextlib
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from entprop_fast.parallel.agreement import Agreement
from entprop_fast.parallel.alone import Alone
from entprop_fast.parallel.replicas import Replicas
from entprop_fast.parallel.rows import world_size
from entprop_fast.parallel.sharded import Sharded, check_wrappers
from entprop_fast.sharding import is_sharded


def warn_unless_wrapped(model: nn.Module, stacklevel: int) -> None:
    """Warn where nobody keeps the networks of several processes alike."""
    processes, kept = world_size(), isinstance(model, DistributedDataParallel) or is_sharded(model)
    if processes > 1 and not kept:
        warnings.warn(
            f"model is not wrapped and the process group has {processes} processes: each trains a "
            "network of its own, and they drift apart. Pass DistributedDataParallel(model) or "
            "fully_shard(model), or average the gradients yourself between "
            "method.backward(images, labels) and the optimizer's step",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )


def replicate(network: nn.Module, **options: Any) -> DistributedDataParallel:
    """Wrap a network for a method, without the memory that the wrapper's own backward would need.

    A `DistributedDataParallel` allocates buckets for the gradients of all parameters that ask for
    one when it is made, and holds a node of their backward graph each, on the stream of that
    moment; a step uses neither, and the nodes of the default stream keep CUDA graphs from being
    captured. Made while one parameter alone asks, it has buckets for that one, and still starts all
    parameters and buffers from rank 0's. Train through methods alone: the wrapper's own forward
    would average that one gradient.

    Args:
        network: on its device; which parameters ask for a gradient is as before, afterwards.
        **options: of the wrapper.
    """
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    side = contextlib.nullcontext()
    if learned and learned[0].is_cuda:
        torch.cuda.current_stream(learned[0].device).synchronize()
        side = torch.cuda.stream(torch.cuda.Stream(learned[0].device))  # type: ignore[assignment]
    for parameter in learned[1:]:
        parameter.requires_grad_(False)
    try:
        with side:
            return DistributedDataParallel(network, **options)
    finally:
        for parameter in learned[1:]:
            parameter.requires_grad_(True)


def unwrap(
    model: nn.Module, criterion: nn.Module | None, agreement: Agreement, *, mean: bool = True
) -> tuple[nn.Module, Alone | Replicas | Sharded]:
    """Find the network that the passes of a step run, and what surrounds all of them.

    Args:
        model: a `DistributedDataParallel`, a network after `fully_shard`, or one that this process
            alone keeps.
        criterion: the loss of a method. Under a `DistributedDataParallel` its parameters and
            buffers become those of rank 0, and its gradients are averaged with the network's.
        agreement: of the method.
        mean: see `Replicas`.

    Raises:
        ValueError: a wrapper inside of `model`, around `criterion`, or with settings that a step
            would pass over; or threads in place of processes (`nn.DataParallel`).
    """
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        raise ValueError(
            f"model is a DataParallel over {len(model.device_ids)} devices, whose threads would "
            "each route a part of the batch: start one process for each with torchrun and pass a "
            "DistributedDataParallel, or let the program see one device (CUDA_VISIBLE_DEVICES=0)"
        )
    network = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(network, nn.Module)
    for name, root in (("model", network), ("criterion", criterion)):
        if root is None:
            continue
        check_wrappers(name, root)
        if any(isinstance(m, DistributedDataParallel) for m in root.modules()):
            raise ValueError(
                f"{name} holds a DistributedDataParallel: wrap the whole network once, outermost, "
                "as in DistributedDataParallel(torch.compile(network)), and pass a criterion as it "
                "is; its gradients are averaged with the network's"
            )
    if isinstance(model, DistributedDataParallel):
        if is_sharded(network):
            raise ValueError(
                "model is a DistributedDataParallel around fully_shard, and both average: leave "
                "the wrapper out, and give fully_shard a mesh (replicate, shard) for copies"
            )
        return network, Replicas(model, criterion, agreement, mean=mean)
    if is_sharded(network):
        return network, Sharded(network, criterion, agreement, mean=mean)
    return network, Alone(agreement)

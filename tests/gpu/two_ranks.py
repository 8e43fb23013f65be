"""What each of two processes trains, over NCCL on a device each or over gloo on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import start_processes

from entprop_fast import create_method, synchronise_norms
from entprop_fast.capture import capturable_optimizer
from entprop_fast.parallel.rows import world_size
from entprop_fast.parallel.wrapping import replicate
from tests.methods.support import batch, dual_network, parameters, sgd
from tests.processes import WORLD, start

STEPS = 8
Found = dict[str, Any]


def train(device: torch.device, *, exact: bool, capture: str = "off") -> Found:
    """Take steps on this process's share of every batch; return the network they leave.

    Args:
        device: of this process.
        exact: norms and selection see the rows of all processes, so that any number of them trains
            what one does.
        capture: of the method.
    """
    inner = dual_network().to(device)
    rank, world = (distributed.get_rank() if world_size() > 1 else 0), world_size()
    if exact:
        synchronise_norms(inner)
    ids = [device.index] if device.type == "cuda" else None
    model: nn.Module = replicate(inner, device_ids=ids) if world > 1 else inner
    optimizer = sgd(model)
    if capture == "off" and device.type == "cuda":
        capturable_optimizer(optimizer, device)  # the form of the captured one
    method = create_method(
        "entprop",
        model,
        optimizer,
        generator=torch.Generator(device).manual_seed(5),
        capture=capture,
        max_grad_norm=1.0,
        **({"ranks": "exact"} if exact else {}),
    )
    for seed in range(STEPS):
        images, labels = batch(seed=seed)
        method(images[rank::world].to(device), labels[rank::world].to(device))
    return {
        "parameters": {name: value.cpu() for name, value in parameters(inner).items()},
        "replays": method.captures.replays,
    }


def in_two_ranks(folder: Path, backend: str) -> list[Found]:
    """Return what each rank found: exact, eager and, over NCCL, captured."""
    if backend == "gloo":
        start(_rank, str(folder), backend)
    else:  # CUDA does not survive a fork
        start_processes(_rank, (str(folder), backend), nprocs=WORLD, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def _rank(rank: int, folder: str, backend: str) -> None:
    torch.set_num_threads(1)
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
        torch.backends.cudnn.deterministic = True
    distributed.init_process_group(
        backend, init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    found = {"exact": train(device, exact=True), "eager": train(device, exact=False)}
    if backend == "nccl":
        found["captured"] = train(device, exact=False, capture="on")
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()

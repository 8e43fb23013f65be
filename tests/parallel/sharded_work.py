"""What the processes of test_sharded.py do: the same steps under DDP, FSDP2, HSDP and ZeRO-1."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from entprop_fast import Method, create_method
from entprop_fast.layers import synchronise_norms
from entprop_fast.methods import GPaCo
from entprop_fast.parallel.sharded_checkpoint import load_sharded, save_sharded
from tests.methods.support import CLASSES, batch, dual_network, generator, statistics

ROWS = 6
Case = tuple[str, dict[str, Any]]
CASES: dict[str, Case] = {
    "vanilla": ("vanilla", {}),
    "mixup": ("mixup", {}),
    "mixprop": ("mixprop", {}),
    "entprop": ("entprop", {}),
    "three attacks": ("entprop", {"k": 0.5, "n": 3}),
    "accumulating": ("entprop", {"k": 0.5, "n": 3, "accumulate": "all"}),
    "equalized": ("entprop", {"k": 0.5, "equalize": True}),
    "global": ("entprop", {"k": 0.5, "selection": "global"}),
    "clipped": ("entprop", {"max_grad_norm": 0.01}),
    "checkpointed": ("entprop", {"n": 2}),
    "advprop": ("advprop", {"n": 2}),
    "fast_advprop": ("fast_advprop", {"p_adv": 0.5}),
    "free_at": ("free_at", {"replays": 2}),
    "entprop_pipelined": ("entprop_pipelined", {}),
    "gpaco": ("entprop", {"criterion": "gpaco", "max_grad_norm": 0.1}),
    "exact": ("entprop", {"k": 0.5, "ranks": "exact", "equalize": True}),
}
IN_FOUR = ("vanilla", "accumulating", "equalized", "clipped", "fast_advprop", "gpaco", "exact")
ADAMW: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
SGD: dict[str, Any] = {"lr": 0.1, "momentum": 0.9}


class Checkpointed(nn.Module):
    """Computes its body again in the backward pass."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.body, x, use_reentrant=False)
        return y


def own_batch(rank: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    images, labels = batch(4 * ROWS, seed=seed, dtype=dtype)
    return images[rank * ROWS :][:ROWS], labels[rank * ROWS :][:ROWS]


def network(seed: int = 0, key: str = "", dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Buffers are other ones in each rank: those of rank 0 count."""
    model = dual_network(seed=seed, dtype=dtype)
    for buffer in model.buffers():
        buffer += distributed.get_rank()
    if key == "exact":
        synchronise_norms(model)
    if key == "checkpointed":
        model[3], model[4] = Checkpointed(model[3]), Checkpointed(model[4])
    return model


def shard(model: nn.Sequential, mesh: Any = None, **options: Any) -> nn.Sequential:
    """Split two blocks and the rest."""
    for block in (model[3], model[4]):
        fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model


def hybrid(model: nn.Sequential) -> nn.Sequential:
    shards = distributed.get_world_size() // 2
    return shard(model, init_device_mesh("cpu", (2, shards), mesh_dim_names=("copies", "parts")))


def make(case: Case, model: nn.Module, optimizer: Any = torch.optim.SGD, **given: Any) -> Method:
    name, alike = case[0], "ranks" in case[1]
    drawn = generator(0 if alike else distributed.get_rank())
    options = {"generator": drawn, **case[1]}
    learned = list(model.parameters())
    if options.get("criterion") == "gpaco":
        options["criterion"] = GPaCo(CLASSES).double()
        options["criterion"].centres.data += distributed.get_rank()
        learned += options["criterion"].parameters()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # that nobody averages
        return create_method(name, model, optimizer(learned, **(given or SGD)), **options)


def whole(tensor: Any) -> Tensor:
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full.detach().clone()


def left(method: Method) -> dict[str, Any]:
    """What steps leave, put together."""
    roots = nn.ModuleList(filter(None, (method.model, method.criterion)))
    named = list(roots.named_parameters())
    found: dict[str, Any] = {
        "parameters": {name: whole(p) for name, p in named},
        "gradients": {name: None if p.grad is None else whole(p.grad) for name, p in named},
        "statistics": statistics(roots),
        "rows": method.rows,
    }
    return found


def trained(method: Method) -> dict[str, Any]:
    """Two steps, with a look at the outputs in between, which leaves FSDP's root whole."""
    rank, results = distributed.get_rank(), []
    for seed in (0, 1):
        method.model.eval()
        with torch.no_grad():
            method.model(own_batch(rank, seed)[0])
        method.model.train()
        results.append(list(method(*own_batch(rank, seed))))
    return {**left(method), "results": results}


def accumulated(method: Method, *, ddp: Any = None, fsdp: Any = None) -> dict[str, Any]:
    """Two batches, averaged once."""
    rank = distributed.get_rank()
    if ddp is not None:
        with ddp.no_sync():
            method.backward(*own_batch(rank, 0), weight=0.5)
    else:
        fsdp.set_requires_gradient_sync(False)
        method.backward(*own_batch(rank, 0), weight=0.5)
        fsdp.set_requires_gradient_sync(True)
    method.backward(*own_batch(rank, 1), weight=0.5)
    return left(method)


def against_ddp(
    split: Callable[[nn.Sequential], nn.Module], keys: Iterable[str], seed: int = 0
) -> dict[str, Any]:
    """Of each case what DDP leaves, and what a network does that is split."""
    found: dict[str, Any] = {}
    for key in keys:
        case, wrapped = CASES[key], DistributedDataParallel(network(key=key))
        found[key] = trained(make(case, wrapped)), trained(make(case, split(network(seed, key))))
    return found


def zero(**options: Any) -> dict[str, Any]:
    """ZeRO-1 against the optimizer that it splits."""
    found: dict[str, Any] = {}
    for optimizer, given in ((torch.optim.SGD, SGD), (torch.optim.AdamW, ADAMW)):
        both = []
        for one in (optimizer, ZeroRedundancyOptimizer):
            own = {"optimizer_class": optimizer} if one is ZeroRedundancyOptimizer else {}
            model = DistributedDataParallel(network())
            method = make(CASES["clipped"], model, one, **own, **given)
            both.append(trained(method))
        found[optimizer.__name__] = both
        method.optimizer.consolidate_state_dict(to=0)  # type: ignore[attr-defined]
    return found


def in_halves() -> dict[str, Any]:
    """The gradients of a step with bfloat16 parameters, and those without."""
    found = {}
    for key, policy in (
        ("bfloat16", MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)),
        ("float32", MixedPrecisionPolicy()),
    ):
        model = shard(network(dtype=torch.float32), mp_policy=policy)
        method = make(("entprop", {"k": 1.0, "mixup": 0.0}), model)
        method(*own_batch(distributed.get_rank(), 0, torch.float32))
        found[key] = left(method)
    return found


def resumed(folder: str, case: Case, optimizer: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What a run leaves that went on, and one that was loaded into another network and did."""
    rank = distributed.get_rank()
    place = f"{folder}/{case[0]}-{optimizer.__name__}"
    method = make(case, shard(network()), optimizer, **given)
    method(*own_batch(rank, 0))
    save_sharded(method, place)
    saved = left(method)
    other = make(case, shard(network(seed=3)), optimizer, **given)
    other(*own_batch(rank, 7))
    load_sharded(other, place)
    for one in (method, other):
        for seed in (1, 2):
            one(*own_batch(rank, seed))
    return {"saved": saved, "went on": left(method), "resumed": left(other)}


def loaded(folder: str, case: Case, optimizer: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What another number of processes loads, and what a step changes."""
    method = make(case, hybrid(network(seed=3)), optimizer, **given)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_sharded(method, f"{folder}/{case[0]}-{optimizer.__name__}")
    found = left(method)
    states = {
        f"0.{name}": {key: whole(value) for key, value in method.optimizer.state[p].items()}
        for name, p in method.model.named_parameters()
        if p in method.optimizer.state
    }
    warned = [str(one.message) for one in caught if "processes" in str(one.message)]
    return found | {"states": states, "warned": warned}

"""``ranks="exact"``: calls of `Method.backward` add up, whichever of them exchange gradients."""

import contextlib
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import fully_shard

from entprop_fast import Method, create_method, synchronise_norms
from entprop_fast.methods import GPaCo
from entprop_fast.parallel.rows import world_size
from tests.methods.support import assert_equal, generator, sgd
from tests.parallel.exact_cases import CASES, CLASSES, method_of, network, own_batch

CHAINS = ("xx", "xwx", "wxwx", "xfx")  # exchanges; waits, under no_sync(); fails at a label


def gradients_of(method: Method) -> dict[str, torch.Tensor]:
    """Those of network and criterion, whole."""
    roots = [root for root in (method.model, method.criterion) if root is not None]
    found = {}
    for place, root in enumerate(roots):
        for name, parameter in root.named_parameters():
            if parameter.grad is not None:
                whole: Any = parameter.grad
                found[f"{place}.{name}"] = getattr(whole, "full_tensor", whole.clone)()
    return found


def accumulated(chain: str, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """The gradients after a chain of calls, each with a batch of its own."""
    method = method_of(CASES["entprop gpaco"])
    for step, kind in enumerate(chain):
        images, labels = own_batch(step + 1, rank, world)
        waits: Any = contextlib.nullcontext()
        if kind == "w" and world > 1:
            waits = getattr(method._replicas, "_wrapper").no_sync()  # noqa: B009
        if kind == "f":
            with pytest.raises(ValueError, match="labels"):
                method.backward(images, labels + CLASSES * (rank == world - 1))
            continue
        with waits:
            method.backward(images, labels, weight=0.5)
    return gradients_of(method)


def sharded(rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """Two calls with a network in parts, and a criterion that every process has whole."""
    model, criterion = synchronise_norms(network(dual=True)), GPaCo(CLASSES).double()
    if world_size() > 1:
        fully_shard(model)
    optimizer = sgd(torch.nn.ModuleList([model, criterion]))
    options: dict[str, Any] = {"generator": generator(5), "ranks": "exact", "capture": "off"}
    method = create_method("entprop", model, optimizer, criterion=criterion, **options)
    for step in (1, 2):
        method.backward(*own_batch(step, rank, world))
    return gradients_of(method)


def run_rank(rank: int) -> dict[str, Any]:
    found: dict[str, Any] = {chain: accumulated(chain, rank, 2) for chain in CHAINS}
    return found | {"sharded": sharded(rank, 2)}


@pytest.mark.parametrize("chain", CHAINS)
def test_gradients_are_summed_once(chain: str, ranks: list[dict[str, Any]]) -> None:
    one = accumulated(chain)
    for found in ranks:
        assert_equal(found[chain], one, tolerance=1e-11)


def test_gradients_beside_a_sharded_network_are_summed_once(ranks: list[dict[str, Any]]) -> None:
    one = sharded()
    for found in ranks:
        assert_equal(found["sharded"], one, tolerance=1e-11)

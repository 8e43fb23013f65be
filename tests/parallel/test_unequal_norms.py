"""Synchronised norms in processes that would not ask each other alike: an error in both."""

from typing import Any

import pytest
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import Method, create_method, synchronise_norms
from entprop_fast.methods import EntPropPipelined
from tests.methods.support import assert_equal, everything, generator, sgd
from tests.parallel.exact_cases import network, own_batch

# What rank 1 has otherwise: an attribute of the norm, a parameter or an option, and what is said.
SAID = {
    "eval": "'norms in eval mode': ['bn', 'bn.aux_bn']",
    "half": "'norms in eval mode': ['bn.aux_bn']",
    "frozen": "'frozen parameters': ['conv.weight'",
    "option": "'n': 2",
    "waiting": "'waiting > 0': False",
}


def differing(kind: str, rank: int) -> dict[str, Any]:
    """What a step says where one process differs, and whether both go on once it does not."""
    model: Any = synchronise_norms(network(dual=True))
    name = "entprop_pipelined" if kind == "waiting" else "entprop"
    options = {"n": 1 + rank} if kind == "option" else {}
    method: Method = create_method(
        name, DistributedDataParallel(model), sgd(model), generator=generator(rank), **options
    )
    batch = own_batch(0, rank, 2)
    if kind != "option":
        method(*batch)
    held = method.state_dict()
    if rank:
        if kind == "eval":
            model.bn.eval()
        elif kind == "half":
            model.bn.aux_bn.eval()
        elif kind == "frozen":
            model.conv.requires_grad_(False)
        elif isinstance(method, EntPropPipelined):
            method.waiting = 0
    before = everything(method)
    with pytest.raises(ValueError, match="disagree") as told:
        method(*batch)
    assert_equal(everything(method), before)
    if kind != "option":
        model.train().requires_grad_(True)
        method.load_state_dict(held)
        method(*batch)
    return {"told": str(told.value)}


def run_rank(rank: int) -> dict[str, Any]:
    return {kind: differing(kind, rank) for kind in SAID}


@pytest.mark.parametrize("kind", SAID)
def test_both_are_told_before_a_pass(kind: str, ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert SAID[kind] in found[kind]["told"]

"""``ranks="exact"``: two and four processes compute what one does on the batch of all rows."""

import faulthandler
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.methods import METHODS
from entprop_fast.parallel.rows import world_size
from tests.methods.support import assert_equal
from tests.parallel.exact_cases import (
    BATCHES,
    CASES,
    IN_FOUR,
    method_of,
    own_batch,
    train,
    train_all,
)
from tests.processes import group_of_one, in_two_processes

Found = Callable[[int], list[dict[str, Any]]]
TOLERANCE = 1e-10  # the promise is 1e-6
SUMMED = slice(0, 3)  # loss, aux_loss, correct: over ranks they add up to one process's


def run_rank(rank: int) -> dict[str, Any]:
    faulthandler.dump_traceback_later(240, exit=True)  # a hang ends the test
    found = train_all(world_size())
    faulthandler.cancel_dump_traceback_later()
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each rank of one, two or four processes found, trained when first asked for."""
    known: dict[int, list[dict[str, Any]]] = {1: [{}]}
    tried: set[int] = set()

    def of(world: int) -> list[dict[str, Any]]:
        if world not in known:
            assert world not in tried, f"{world} processes failed before; see the first failure"
            tried.add(world)
            folder = tmp_path_factory.mktemp("ranks")
            known[world] = in_two_processes(run_rank, folder, world)
        return known[world]

    return of


def one_process(key: str, found: Found) -> dict[str, Any]:
    (alone,) = found(1)
    if key not in alone:
        alone[key] = train(key)
    known: dict[str, Any] = alone[key]
    return known


def in_order(parts: list[Tensor], numbers: list[Tensor] | None = None) -> Tensor:
    """Rows of all ranks: by their numbers, or dealt out one at a time."""
    if numbers is not None:
        return torch.cat(parts)[torch.cat(numbers).argsort()]
    joined = parts[0].new_empty((sum(map(len, parts)), *parts[0].shape[1:]))
    for rank, part in enumerate(parts):
        joined[rank :: len(parts)] = part
    return joined


KEYS = [(2, key) for key in CASES] + [(4, key) for key in IN_FOUR]


@pytest.mark.parametrize(("world", "key"), KEYS, ids=[f"{key} x{world}" for world, key in KEYS])
def test_several_processes_learn_what_one_learns(world: int, key: str, found: Found) -> None:
    one, ranks = one_process(key, found), [rank[key] for rank in found(world)]
    for rank in ranks:
        for name in ("parameters", "buffers"):
            assert_equal(rank[name], one[name], tolerance=TOLERANCE)
        # The entropies are of all rows in every process.
        assert_equal(rank["results"][:, 3:], one["results"][:, 3:], tolerance=TOLERANCE)
    summed = sum(rank["results"][:, SUMMED] for rank in ranks)
    assert_equal(summed, one["results"][:, SUMMED], tolerance=TOLERANCE)
    assert sum(rank["rows"] for rank in ranks) == one["rows"]


@pytest.mark.parametrize(("world", "key"), KEYS, ids=[f"{key} x{world}" for world, key in KEYS])
def test_several_processes_perturb_the_rows_that_one_perturbs(
    world: int, key: str, found: Found
) -> None:
    one, ranks = one_process(key, found), [rank[key] for rank in found(world)]
    split = key == "fast_advprop"  # its last rows, which stay where they are
    for step, (selected, perturbed) in enumerate(
        zip(one["selected"], one["perturbed"], strict=True)
    ):
        numbers = [rank["selected"][step] for rank in ranks]
        order = numbers if split else None
        assert_equal(in_order(numbers, order), selected)
        found_here = in_order([rank["perturbed"][step] for rank in ranks], order)
        assert_equal(found_here, perturbed, tolerance=TOLERANCE)
    sizes = [len(part) for part in one["selected"]]
    assert max(sizes) > 1 or not max(sizes)


@pytest.mark.parametrize("key", METHODS)
@pytest.mark.parametrize("world", [2, 4])
def test_the_joined_state_is_that_of_one_process(world: int, key: str, found: Found) -> None:
    """And it is dealt out again to as many or others: tests/methods/test_method_state.py."""
    one, ranks = one_process(key, found)["state"], [rank[key]["state"] for rank in found(world)]
    joined = METHODS[key].gathered_state(ranks)
    joined.pop("generators")
    assert_equal(joined, one, tolerance=TOLERANCE)
    for rank, state in enumerate(ranks):
        again = METHODS[key].dealt_state(METHODS[key].gathered_state(ranks), rank, world)
        again["rows"] = state["rows"]  # of what all have: their sum counts
        assert_equal(again, state)


@pytest.mark.parametrize("key", ["entprop", "fast_advprop", "entprop_pipelined", "mixup gpaco"])
def test_one_process_takes_the_ordinary_step(key: str) -> None:
    """Bit for bit, without a process group and in one of itself."""
    ordinary = method_of(CASES[key], ranks="independent", synchronise=False)
    exact = method_of(CASES[key])
    with group_of_one():
        grouped = method_of(CASES[key])
    for step in range(len(BATCHES)):
        expected = list(ordinary(*own_batch(step)))
        assert_equal(list(exact(*own_batch(step))), expected)
        with group_of_one():
            assert_equal(list(grouped(*own_batch(step))), expected)
    for method in (exact, grouped):
        assert_equal(list(method.model.parameters()), list(ordinary.model.parameters()))

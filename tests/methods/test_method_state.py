"""The state of a method, joined from several processes and dealt out to another number."""

from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.methods import METHODS, EntPropPipelined, FreeAT
from entprop_fast.methods.method_state import deal_out, join
from tests.methods.support import ONE_VIEW, assert_equal, batch, generator, make, sgd


def rows_of(numbers: list[int], size: int = 2) -> Tensor:
    """Rows that say their number."""
    return torch.tensor(numbers, dtype=torch.float64)[:, None].expand(-1, size).clone()


def waits(numbers: list[int], lam: Tensor | None) -> dict[str, Any]:
    labels = torch.tensor(numbers)
    return {"images": rows_of(numbers), "labels": labels, "labels_b": labels + 10, "lam": lam}


def state(rows: int, seed: int | None, **others: Any) -> dict[str, Any]:
    drawn = None if seed is None else generator(seed).get_state()
    return {"rows": rows, "generator": drawn, "criterion": {}, **others}


@pytest.mark.parametrize(
    ("parts", "joined"),
    [
        ([[0, 2, 4], [1, 3]], [0, 1, 2, 3, 4]),
        ([[0], [1], []], [0, 1]),
        ([[0, 1, 2], [3]], [0, 3, 1, 2]),  # no dealing of one batch: in turns all the same
        ([[0, 1]], [0, 1]),
    ],
)
def test_rows_are_joined_in_turns(parts: list[list[int]], joined: list[int]) -> None:
    found = FreeAT.gathered_state([state(6, 0, delta=rows_of(part)) for part in parts])
    assert_equal(found["delta"], rows_of(joined))
    assert found["rows"] == 6 * len(parts)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_what_is_dealt_out_joins_to_the_same(world: int) -> None:
    lam = torch.tensor(0.3, dtype=torch.float64)
    whole = state(101, 0, waiting=waits([0, 1, 2, 3, 4], lam))
    dealt = [EntPropPipelined.dealt_state(whole, rank, world) for rank in range(world)]
    assert sum(part["rows"] for part in dealt) == 101
    assert [len(part["waiting"]["labels"]) for part in dealt] == [
        len(range(rank, 5, world)) for rank in range(world)
    ]
    again = EntPropPipelined.gathered_state(dealt)
    assert_equal([again.pop("generators")[0]], [whole["generator"]])
    assert_equal(again, whole)


def test_generators_of_their_own_are_kept_by_as_many() -> None:
    states = [state(3, seed) for seed in (0, 1)]
    joined = METHODS["entprop"].gathered_state(states)
    assert joined["generator"] is None
    for rank in range(2):
        own = METHODS["entprop"].dealt_state(joined, rank, 2)
        assert_equal(own["generator"], states[rank]["generator"])
        assert "generators" not in own
    assert METHODS["entprop"].dealt_state(joined, 1, 3)["generator"] is None  # to be seeded anew
    alike = METHODS["entprop"].gathered_state([state(3, 5), state(3, 5)])
    assert_equal(METHODS["entprop"].dealt_state(alike, 2, 3)["generator"], alike["generator"])
    none = METHODS["entprop"].gathered_state([state(3, None), state(3, None)])
    assert METHODS["entprop"].dealt_state(none, 0, 3)["generator"] is None


def test_each_row_keeps_the_lam_that_its_process_mixed_it_with() -> None:
    lams = [torch.tensor(value, dtype=torch.float64) for value in (0.25, 0.75)]
    parts = [waits([0, 2, 4], lams[0]), waits([1, 3], lams[1])]
    joined = EntPropPipelined.gathered_state([state(1, 0, waiting=part) for part in parts])
    assert joined["waiting"]["lam"].tolist() == [0.25, 0.75, 0.25, 0.75, 0.25]
    dealt = EntPropPipelined.dealt_state(joined, 1, 3)["waiting"]
    assert dealt["labels"].tolist() == [1, 4] and dealt["lam"].tolist() == [0.75, 0.25]
    method = make("entprop_pipelined", mixup=0.0, aux_labels="mixed")
    assert isinstance(method, EntPropPipelined)
    images = batch(5)[0]
    waiting = joined["waiting"] | {"images": images, "labels_b": joined["waiting"]["labels"]}
    method.load_state_dict(method.state_dict() | {"waiting": waiting})
    assert method.waiting == 5
    assert method(*batch()).aux_loss.isfinite()


def test_what_cannot_be_joined_is_named() -> None:
    with pytest.raises(ValueError, match="states"):
        FreeAT.gathered_state([])
    with pytest.raises(ValueError, match=r"delta.*\(2,\), \(3,\)"):
        join("delta", [rows_of([0]), rows_of([1], 3)])
    lam = torch.tensor(0.5)
    with pytest.raises(ValueError, match=r"waiting.*waiting=0"):
        join("waiting", [waits([0], lam), waits([1], None)])
    for rank, world in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"rank={rank}.*world={world}"):
            FreeAT.dealt_state(state(0, 0, delta=None), rank, world)


def test_no_rows_are_joined_to_none() -> None:
    assert join("delta", [None, None]) is None and deal_out(None, 0, 2) is None
    assert_equal(join("delta", [None, rows_of([0, 1])]), rows_of([0, 1]))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_goes_on_from_what_was_joined(name: str) -> None:
    """One process's state, joined and dealt out as one: the next step is the same to the bit."""
    method, other = (make(name, generator=generator(3)) for _ in range(2))
    for one in (method, other):
        one(*batch())
    joined = METHODS[name].gathered_state([other.state_dict()])
    options = ONE_VIEW.get(name, {})
    fresh = type(other)(other.model, sgd(other.model), generator=generator(4), **options)
    fresh.optimizer.load_state_dict(other.optimizer.state_dict())
    fresh.load_state_dict(METHODS[name].dealt_state(joined, 0, 1))
    assert_equal(list(fresh(*batch(seed=1))), list(method(*batch(seed=1))))
    assert_equal(list(fresh.model.parameters()), list(method.model.parameters()))

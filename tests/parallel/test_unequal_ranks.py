"""FOUND C7: two processes that do not do the same. A right result or an error in both, no hang."""

import faulthandler
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import Method, create_method
from entprop_fast.methods import METHODS, GPaCo
from entprop_fast.parallel import agreement
from entprop_fast.parallel.rows import gather_rows, own_share, shuffle_rows
from tests.methods.support import (
    CLASSES,
    ONE_VIEW,
    assert_equal,
    batch,
    dual_network,
    everything,
    frozen_network,
    generator,
    make,
    parameters,
    plain_network,
    sgd,
)
from tests.processes import group_of_one

ROWS = (16, 7)
ALL = sum(ROWS)
GLOBAL: dict[str, Any] = {"selection": "global", "k": 0.2}
Case = tuple[str, dict[str, Any]]
EXCHANGING: dict[str, Case] = {
    "global": ("entprop", GLOBAL),
    "mixed": ("entprop", GLOBAL | {"aux_labels": "mixed", "n": 2, "attack_loss": "trades"}),
    "equalized": ("entprop", GLOBAL | {"equalize": True, "score": "random"}),
    "fast_advprop": ("fast_advprop", {}),
    "chosen": ("fast_advprop", {"k": 0.4}),
}
PLAIN: dict[str, Case] = {name: (name, ONE_VIEW.get(name, {})) for name in METHODS}
WRAPPED = PLAIN | EXCHANGING


def own_batch(rank: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    images, labels = (t.split(ROWS)[rank] for t in batch(ALL, seed=seed))
    return images, labels


def of(case: Case, rank: int, *, wrap: bool = True, model: Any = None) -> Method:
    model = dual_network() if model is None else model
    options = {"generator": generator(rank), **case[1]}
    wrapped = DistributedDataParallel(model) if wrap else model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of networks that drift apart
        return create_method(case[0], wrapped, sgd(model), **options)


def told(call: Any, *args: Any) -> str:
    """The error that a call ends with."""
    try:
        call(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def chosen(rank: int, **options: Any) -> dict[str, Any]:
    case = ("entprop", GLOBAL | {"n": 2, "alpha": 0.02, "mixup": 0.0} | options)
    method = of(case, rank, wrap=False, model=frozen_network())
    result = method.backward(*own_batch(rank))
    assert method.selected_index is not None and method.perturbed is not None
    return {
        "selected": method.selected_index,
        "perturbed": method.perturbed,
        "entropies": [result.entropy_selected, result.entropy_unselected],
    }


def steps(case: Case, rank: int) -> dict[str, Tensor]:
    method = of(case, rank)
    for seed in range(2):
        method(*own_batch(rank, seed))
    return parameters(method.model)


def refused(case: Case, rank: int, *, wrap: bool, seen: bool) -> dict[str, Any]:
    """Rank 1 gets a label that no class has; both go on with the next batch."""
    method = of(case, rank, wrap=wrap)
    if seen:
        method(*own_batch(rank, 5))
    images, labels = own_batch(rank)
    before = everything(method)
    wrong = labels + CLASSES * rank
    calls = [method] if case[0] == "free_at" else [method, method.backward]
    errors = [told(call, images, wrong) for call in calls]
    assert_equal(everything(method), before)
    method(images, labels)
    return {"errors": errors, "parameters": parameters(method.model)}


class Fails(nn.Module):
    """Raises at one of its forwards."""

    def __init__(self, call: int) -> None:
        super().__init__()
        self.body, self.left = dual_network(), call

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyError("out of order")
        y: Tensor = self.body(x)
        return y


def failing(case: Case, rank: int, at: int, *, wrap: bool) -> str:
    method = of(case, rank, wrap=wrap, model=Fails(at if rank == 1 else 0))
    method(*own_batch(rank))
    return told(method, *own_batch(rank, 1))


def disagreeing(rank: int) -> dict[str, str]:
    images, labels = own_batch(rank)
    one, other = EXCHANGING["global"], PLAIN["entprop"]
    found = {}
    for key, wrap in (("kinds", True), ("kinds, unwrapped", False)):
        method = of(("entprop", GLOBAL) if rank else ("fast_advprop", {}), rank, wrap=wrap)
        found[key] = told(method, images, labels)
    found["only one"] = told(of(other if rank else one, rank), images, labels)
    crop = images[..., : 6 - rank]
    found["sizes"] = told(of(one, rank), crop, labels)
    found["sizes of the shuffle"] = told(of(("fast_advprop", {}), rank), crop, labels)
    found["mixing"] = told(of(("entprop", GLOBAL | {"mixup": float(rank)}), rank), images, labels)
    found["replays"] = told(of(("free_at", {"replays": 1 + rank}), rank), images, labels)
    method = of(PLAIN["vanilla"], rank, model=plain_network())
    method.model.register_buffer("bank", torch.zeros(10 + 4 * rank))  # as one that grows by rows
    found["buffers"] = told(method, images, labels)
    criterion = GPaCo(CLASSES + rank).double()
    model = dual_network()
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1)
    wrapped: Any = DistributedDataParallel(model)
    found["criterion"] = told(
        lambda: create_method("vanilla", wrapped, optimizer, criterion=criterion)
    )
    return found


def may_differ(rank: int) -> dict[str, str]:
    """What concerns a rank alone: sizes of images, k, n; nothing of it is refused."""
    images, labels = own_batch(rank)
    return {
        "sizes": told(of(("entprop", {}), rank), images[..., : 6 - rank], labels),
        "k": told(of(("entprop", GLOBAL | {"k": 0.2 + 0.3 * rank}), rank), images, labels),
        "n": told(of(("entprop", {"n": 1 + rank}), rank), images, labels),
    }


def replaced(rank: int) -> str:
    """FOUND W10, a neighbour: the wrapper would not average what was put in later."""
    method = of(("vanilla", {}), rank)
    method(*own_batch(rank))
    method.model.head = nn.Linear(6, CLASSES).double()
    method.optimizer.add_param_group({"params": method.model.head.parameters()})
    return told(method, *own_batch(rank))


def by_nccl_alone(rank: int) -> dict[str, Any]:
    """A process group that takes no CPU tensors gets one of gloo beside it."""
    config = distributed.get_backend_config
    distributed.get_backend_config = lambda *_: "cuda:nccl"
    agreement._host_groups.clear()
    try:
        found = steps(("entprop", GLOBAL), rank)
        group = agreement.host_group()
    finally:
        distributed.get_backend_config = config
        agreement._host_groups.clear()
    assert group is not None and distributed.get_backend(group) == "gloo"
    return found


def warned(rank: int) -> list[str]:
    """FOUND W11: of a model that nobody keeps alike, once, and not of a wrapped one."""
    said = []
    for wrap in (False, True):
        model: nn.Module = plain_network()
        optimizer = sgd(model)
        model = DistributedDataParallel(model) if wrap else model
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            method = create_method("vanilla", model, optimizer)
            method(*own_batch(rank))
            method(*own_batch(rank))
        said.append("; ".join(f"{w.filename}: {w.message}" for w in caught))
    return said


def run_rank(rank: int) -> dict[str, Any]:
    faulthandler.dump_traceback_later(240, exit=True)  # a hang ends the test
    known: dict[Any, Any] = {}
    rows = torch.arange(ALL).split(ROWS)[rank]
    known["gathered"] = gather_rows(rows[:, None].expand(-1, 3), ROWS)
    known["gathered of equals"] = gather_rows(torch.full((2,), rank), (2, 2))
    known["shares"] = own_share(torch.arange(7), (5, 2))
    known["shares of equals"] = own_share(torch.arange(8), (4, 4))
    images, labels = own_batch(rank)
    known["shuffled"] = shuffle_rows(images, labels, generator(rank), ROWS)
    known["chosen"] = chosen(rank)
    for key, case in WRAPPED.items():
        known[f"steps {key}"] = steps(case, rank)
        known[f"refused {key}"] = refused(case, rank, wrap=True, seen=key in EXCHANGING)
    for key, case in EXCHANGING.items():
        known[f"refused alone {key}"] = refused(case, rank, wrap=False, seen=True)
    for at in (4, 5, 6):  # after one of a single row and a step: main pass, auxiliary one, none
        known[f"failing {at}"] = failing(("entprop", GLOBAL), rank, at, wrap=True)
    known["failing alone"] = failing(("entprop", GLOBAL), rank, 4, wrap=False)
    known["disagreeing"] = disagreeing(rank)
    known["may differ"] = may_differ(rank)
    known["replaced"] = replaced(rank)
    known["nccl"] = by_nccl_alone(rank)
    known["warned"] = warned(rank)
    faulthandler.cancel_dump_traceback_later()
    return known


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_rows_of_all_ranks_come_in_their_order(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert_equal(found["gathered"], torch.arange(ALL)[:, None].expand(-1, 3))
        assert found["gathered of equals"].tolist() == [0, 0, 1, 1]
    assert [found["shares"].tolist() for found in ranks] == [[0, 2, 4, 5, 6], [1, 3]]
    assert [found["shares of equals"].tolist() for found in ranks] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_the_ranks_select_among_all_rows(ranks: list[dict[str, Any]]) -> None:
    """FOUND C7: 16 and 7 rows; m a rank (3 and 1), the four of highest entropy of all 23."""
    alone = make(model=frozen_network(), n=2, alpha=0.02, mixup=0.0, k=4 / ALL)
    result = alone.backward(*batch(ALL))
    assert alone.selected_index is not None and alone.perturbed is not None
    of_ranks = [found["chosen"] for found in ranks]
    assert [len(found["selected"]) for found in of_ranks] == [3, 1]
    order = [0, 3, 1, 2]  # dealt out one at a time
    merged = torch.cat([found["selected"] for found in of_ranks])[order]
    assert_equal(merged, alone.selected_index)
    close(torch.cat([found["perturbed"] for found in of_ranks])[order], alone.perturbed)
    for found in of_ranks:
        close(found["entropies"], [result.entropy_selected, result.entropy_unselected])


def test_shuffled_rows_keep_their_labels_and_their_number(ranks: list[dict[str, Any]]) -> None:
    known = {tuple(x.flatten().tolist()): int(y) for x, y in zip(*batch(ALL), strict=True)}
    dealt = [found["shuffled"] for found in ranks]
    assert [len(images) for images, _ in dealt] == list(ROWS)
    pairs = [(x, y) for images, labels in dealt for x, y in zip(images, labels, strict=True)]
    assert {tuple(x.flatten().tolist()): int(y) for x, y in pairs} == known
    places = [(batch(ALL)[0] == x).flatten(1).all(1).nonzero().item() for x in dealt[0][0]]
    assert places != sorted(places)


@pytest.mark.parametrize("key", WRAPPED)
def test_ranks_of_unequal_rows_stay_alike(key: str, ranks: list[dict[str, Any]]) -> None:
    """FOUND C7, neighbours: every method, every exchange."""
    assert_equal(ranks[0][f"steps {key}"], ranks[1][f"steps {key}"])
    assert all(p.isfinite().all() for p in ranks[0][f"steps {key}"].values())


@pytest.mark.parametrize("key", [*(f"refused {key}" for key in WRAPPED),
                                 *(f"refused alone {key}" for key in EXCHANGING)])  # fmt: skip
def test_a_batch_that_one_rank_refuses(key: str, ranks: list[dict[str, Any]]) -> None:
    """FOUND C7: an error in both, nothing has changed in either, and both go on."""
    for rank, found in enumerate(ranks):
        for error in found[key]["errors"]:
            start = "ValueError: " + ("rank 1 refused its batch" if rank == 0 else "labels hold")
            assert error.startswith(start) and "labels hold" in error
    if "alone" not in key:
        assert_equal(ranks[0][key]["parameters"], ranks[1][key]["parameters"])


@pytest.mark.parametrize("key", ["failing 4", "failing 5", "failing 6", "failing alone"])
def test_a_model_that_fails_in_one_rank(key: str, ranks: list[dict[str, Any]]) -> None:
    """FOUND C7, neighbours: before and after rows are exchanged; 6 is never reached."""
    errors = [found[key] for found in ranks]
    if key == "failing 6":
        assert errors == ["", ""]
        return
    assert errors[0].startswith("RuntimeError: rank 1 failed") and "out of order" in errors[0]
    assert errors[1].startswith("KeyError")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("kinds", ["the shuffle", "selection='global'"]),
        ("kinds, unwrapped", ["the shuffle", "selection='global'"]),
        ("only one", ["selection='global'", "gradients"]),
        ("sizes", ["(3, 6, 6)", "(3, 6, 5)"]),
        ("sizes of the shuffle", ["(3, 6, 6)", "(3, 6, 5)"]),
        ("mixing", ["rank 0", "rank 1"]),
        ("replays", ["'replays': 1", "'replays': 2"]),
        ("buffers", ["'values in buffers': 32", "'values in buffers': 36"]),
        ("criterion", ["(5, 5)", "(6, 6)"]),
    ],
)
def test_ranks_that_are_about_to_do_something_else(
    key: str, words: list[str], ranks: list[dict[str, Any]]
) -> None:
    """FOUND C7, neighbours: both say what each has."""
    for found in ranks:
        error = found["disagreeing"][key]
        assert "Disagreement: the processes disagree" in error
        assert all(word in error for word in words)


def test_what_is_told_of_one_rank(ranks: list[dict[str, Any]]) -> None:
    """FOUND W10, a neighbour: a replaced head; sizes, k and n may differ; gloo beside nccl."""
    for found in ranks:
        assert "ValueError: " in found["replaced"] and "model.head.weight" in found["replaced"]
        assert set(found["may differ"].values()) == {""}
        assert_equal(found["nccl"], ranks[0]["steps global"])


def test_a_model_that_is_not_wrapped_is_warned_of_once(ranks: list[dict[str, Any]]) -> None:
    """FOUND W11: with what to do, where the method is made."""
    for found in ranks:
        unwrapped, wrapped = found["warned"]
        assert unwrapped.count("drift apart") == 1 and "DistributedDataParallel(model)" in unwrapped
        assert "test_unequal_ranks.py" in unwrapped and not wrapped


def test_one_process_has_all_rows() -> None:
    rows, before = torch.arange(5), torch.get_rng_state()
    assert gather_rows(rows, (5,)) is rows and own_share(rows, (5,)) is rows
    assert shuffle_rows(rows, rows, None, (5,)) == (rows, rows)  # as they are, and nothing drawn
    assert_equal(torch.get_rng_state(), before)


def test_a_process_alone_is_not_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    """FOUND W11: neither without a process group nor in one of itself."""
    make("vanilla", model=plain_network())
    with group_of_one():
        make("vanilla", model=plain_network())
    assert not [w for w in recwarn if "drift apart" in str(w.message)]

"""``ranks="exact"``: what is refused, in every process, and what a step may be divided into."""

import faulthandler
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import Method, create_method, synchronise_norms
from entprop_fast.capture import graphs
from entprop_fast.methods import EntPropPipelined
from entprop_fast.parallel.dealt_rows import DealtRows, StackedRows
from entprop_fast.parallel.rows import world_size
from tests.methods.support import assert_equal, everything, generator, gradients, sgd
from tests.parallel.exact_cases import CASES, CLASSES, method_of, network, own_batch

VANILLA = CASES["vanilla"]
ENTPROP = CASES["entprop"]


def told(call: Callable[..., object], *args: Any) -> str:
    """The error that a call ends with."""
    try:
        call(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def made(rank: int) -> dict[str, str]:
    """What `create_method` refuses."""
    frozen = network(dual=True)
    frozen.get_submodule("bn").eval()
    frozen.get_submodule("bn.aux_bn").eval()
    instance = nn.Sequential(nn.InstanceNorm2d(1, track_running_stats=True), *network(dual=False))
    return {
        "generator": told(lambda: method_of(VANILLA, generator=None)),
        "seeds": told(lambda: method_of(VANILLA, seed=rank)),
        "norms": told(lambda: method_of(ENTPROP, synchronise=False)),
        "instance norms": told(wrapped, synchronise_quietly(instance)),
        "frozen norms": told(wrapped, frozen),
        "unwrapped": told(lambda: create_method("vanilla", *of(network(dual=False)), **exact())),
        "capture": told(lambda: method_of(VANILLA, capture="on")),
        "one of them": told(lambda: method_of(VANILLA, generator=None if rank else generator(5))),
    }


def exact() -> dict[str, Any]:
    return {"ranks": "exact", "generator": generator(5)}


def of(model: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    return model, sgd(model)


def wrapped(model: nn.Module) -> Method:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return create_method("vanilla", DistributedDataParallel(model), sgd(model), **exact())


def synchronise_quietly(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of the norm that is left
        return synchronise_norms(model.double())


def called(rank: int) -> dict[str, Any]:
    """What a call refuses; nothing changes, and all go on with the next batch."""
    images, labels = own_batch(0, rank, 2)
    some = own_batch(1)
    given: dict[str, Any] = {
        "halves": tuple(t.split((10, 6))[rank] for t in some),
        "the other way": tuple(t[1 - rank :: 2] for t in own_batch(2)),  # 5 and 6 rows
        "none": (images[:0], labels[:0]),
        "a label": (images, labels + CLASSES * rank),
        "one row": (images[: 1 - rank], labels[: 1 - rank]),
        "sizes": (images[..., : 6 - rank], labels),
    }
    found = {}
    for key, batch in given.items():
        method = method_of(CASES["mixup"])
        before = everything(method)
        found[key] = told(method, *batch)
        assert_equal(everything(method), before)
        found[f"after {key}"] = told(method, images, labels)
    return found


def differing(rank: int) -> dict[str, str]:
    """What ranks disagree about at a step."""
    batch = own_batch(0, rank, 2)
    drawn = method_of(VANILLA)
    if rank:
        torch.rand(1, generator=drawn.generator)
    waits = method_of(CASES["entprop_pipelined"])
    assert isinstance(waits, EntPropPipelined)
    waits(*batch)
    waits.waiting = waits.waiting if rank else 0
    later = method_of(VANILLA, ranks="independent")
    later.generator = generator(5)
    setattr(later, "ranks", "exact")  # noqa: B010  # an option, which is no name of the class
    return {
        "generator": told(drawn, *batch),
        "waiting": told(waits, *batch),
        "options": told(method_of(("mixup", {"mixup": 1.0 + rank})), *batch),
        "methods": told(method_of(CASES["mixprop" if rank else "entprop"]), *batch),
        "set later": told(later, *batch),
        "thawed": told(thawed(), *batch),
    }


def thawed() -> Method:
    """A norm learns again once the method is made."""
    model = network(dual=False)
    norm = model.get_submodule("bn").eval()
    method = wrapped(model)
    norm.train()
    return method


def accumulated(rank: int, world: int) -> dict[str, Any]:
    """Two batches, weighted, between which nothing is exchanged."""
    method = method_of(ENTPROP)
    wrapper = method._replicas.__dict__.get("_wrapper")
    if wrapper is None:
        method.backward(*own_batch(2), weight=0.25)
    else:
        with wrapper.no_sync():
            method.backward(*own_batch(2, rank, world), weight=0.25)
    method.backward(*own_batch(3, rank, world), weight=0.75)
    return {"gradients": gradients(method.model), "rows": method.rows}


def single_rows(rank: int) -> dict[str, str]:
    """Rows of a norm are counted in all processes."""
    images, labels = own_batch(0)
    pair = images[rank : rank + 1], labels[rank : rank + 1]
    flat = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, CLASSES)).double()
    one = (images[: 1 - rank], labels[: 1 - rank])
    return {
        "two": told(wrapped(synchronise_norms(flat)), *pair),
        "one": told(wrapped(synchronise_norms(flat)), *one),
        "m=1": told(method_of(("entprop", {"k": 0.1})), *pair),  # 2 x 2 values a channel
    }


class Fails(nn.Module):
    """Raises at one of its forwards, amid a step whose norms wait for each other."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.body, self.left = synchronise_norms(network(dual=True)), at

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyError("out of order")
        y: Tensor = self.body(x)
        return y


def left_alone(rank: int) -> dict[str, Any]:
    """One process fails amid a step, and ends."""
    model = Fails(4 * rank)  # in the second step
    method = create_method("entprop", DistributedDataParallel(model), sgd(model), **exact())
    batch = own_batch(0, rank, 2)
    method(*batch)
    if not rank:
        return {"error": told(method, *batch)}
    try:
        method(*batch)
    except KeyError as error:
        return {"error": repr(error), "notes": error.__notes__, "then": told(method, *batch)}
    return {}


def exchanged(rank: int) -> dict[str, Any]:
    """The dealing by itself: 5 rows, those after the second, and a ranking of three."""
    rows = torch.arange(5.0, dtype=torch.float64)[:, None] + torch.tensor([0.0, 0.5])
    dealt = DealtRows(5, 2, rank)
    rest, own = dealt.after(1), dealt.share(rows)
    learned = own.clone().requires_grad_()
    (dealt.gather_with_gradient(learned)[:, 0] * (1 + rank)).sum().backward()
    stacked = StackedRows((2, 3), (1, 2))
    return {
        "held": [dealt.held, rest.held],
        "gathered": dealt.gather(own),
        "gathered rest": rest.gather(rest.share(rows[1:])),
        "brought": dealt.bring(torch.tensor([4, 1, 2]), [own, own[:, 0].long()]),
        "stacked": stacked.bring(torch.tensor([4, 0, 2]), [rows.split((2, 3))[rank]])[0],
        "gradient": learned.grad,
        "mean": dealt.mean_of_all(own[:, 0]),
    }


def run_rank(rank: int) -> dict[str, Any]:
    faulthandler.dump_traceback_later(240, exit=True)  # a hang ends the test
    known = {
        "made": made(rank),
        "called": called(rank),
        "differing": differing(rank),
        "accumulated": accumulated(rank, distributed.get_world_size()),
        "single rows": single_rows(rank),
        "exchanged": exchanged(rank),
        "left": left_alone(rank),  # last: no other step is possible
    }
    faulthandler.cancel_dump_traceback_later()
    return known


Ranks = list[dict[str, Any]]


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("generator", ["generator=None", "ranks='exact'", "seeded alike"]),
        ("seeds", ["generator", "process 1", "seeded alike"]),
        ("norms", ["model.bn", "entprop_fast.synchronise_norms(model)"]),
        ("instance norms", ["model.0", "InstanceNorm2d"]),
        ("unwrapped", ["ranks='exact'", "DistributedDataParallel"]),
        ("capture", ["capture='on'", "ranks='exact'"]),
    ],
)
def test_what_no_method_is_made_of(key: str, words: list[str], ranks: Ranks) -> None:
    for found in ranks:
        error = found["made"][key]
        assert error.startswith("ValueError: ") and all(word in error for word in words), error


def test_what_one_process_refuses_ends_in_all(ranks: Ranks) -> None:
    errors = [found["made"]["one of them"] for found in ranks]
    assert errors[1].startswith("ValueError: generator=None")
    assert errors[0].startswith("ValueError: rank 1 refused") and "generator=None" in errors[0]
    assert all(found["made"]["frozen norms"] == "" for found in ranks)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("halves", ["[10, 6]", "r::world", "[8, 8]"]),
        ("the other way", ["[5, 6]", "r::world", "[6, 5]"]),
        ("none", ["images", "not empty"]),
        ("a label", ["labels hold"]),
        ("one row", ["B=1", "mixup=1"]),
        ("sizes", ["(1, 6, 6)", "(1, 6, 5)"]),
    ],
)
def test_batches_that_are_refused_everywhere(key: str, words: list[str], ranks: Ranks) -> None:
    for found in ranks:
        error = found["called"][key]
        kinds = ("ValueError: ", "Disagreement: ")
        assert error.startswith(kinds) and all(word in error for word in words), error
        assert found["called"][f"after {key}"] == ""


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("generator", ["ValueError: generator", "process 1"]),
        ("waiting", ["ValueError: rows that wait", "r::world"]),
        ("options", ["'mixup': 1.0", "'mixup': 2.0"]),
        ("methods", ["a step of entprop", "a step of mixprop"]),
        ("set later", ["ValueError: ranks='exact'", "make another"]),
    ],
)
def test_ranks_that_would_not_compute_as_one(key: str, words: list[str], ranks: Ranks) -> None:
    for found in ranks:
        error = found["differing"][key]
        assert all(word in error for word in words), error


def test_accumulated_batches_are_summed_over_the_ranks(ranks: Ranks) -> None:
    one = accumulated(0, 1)
    for found in ranks:
        assert_equal(found["accumulated"]["gradients"], one["gradients"], tolerance=1e-12)
    assert sum(found["accumulated"]["rows"] for found in ranks) == one["rows"]


def test_a_single_row_counts_in_all_processes(ranks: Ranks) -> None:
    for found in ranks:
        assert found["single rows"]["two"] == "" == found["single rows"]["m=1"]
        assert "ValueError: a batch of B=1 is a single row" in found["single rows"]["one"]


def test_a_process_that_fails_amid_a_step_ends_the_others(ranks: Ranks) -> None:
    """It tells nobody, who would take the words for rows; its end is an error to the others."""
    waited, failed = (found["left"] for found in ranks)
    assert "out of order" in failed["error"] and "amid a step" in failed["notes"][0]
    assert "cannot go on together" in failed["then"]
    assert waited["error"].startswith("RuntimeError")


def test_rows_travel_to_where_a_ranking_deals_them(ranks: Ranks) -> None:
    rows = torch.arange(5.0, dtype=torch.float64)[:, None] + torch.tensor([0.0, 0.5])
    first, second = (found["exchanged"] for found in ranks)
    assert [first["held"], second["held"]] == [[3, 2], [2, 2]]
    for found in (first, second):
        assert_equal(found["gathered"], rows)
        assert_equal(found["gathered rest"], rows[1:])
        assert found["mean"] == 2.0
        # Each rank weighs its loss of all rows by its number.
        expected = torch.tensor([3.0, 0.0], dtype=torch.float64).expand_as(found["gradient"])
        assert_equal(found["gradient"], expected)
    assert_equal(first["brought"], [rows[[4, 2]], torch.tensor([4, 2])])
    assert_equal(second["brought"], [rows[[1]], torch.tensor([1])])
    assert_equal([first["stacked"], second["stacked"]], [rows[[4]], rows[[0, 2]]])


def test_steps_are_not_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, where a process group alone would not keep them from it."""
    method = method_of(VANILLA)
    assert method.why_not_captured() is None and world_size() == 1
    monkeypatch.setattr("entprop_fast.methods.exact_ranks.world_size", lambda: 2)
    assert "ranks='exact'" in str(method.why_not_captured())
    assert "cuda" in graphs.GRAPHS


def test_no_process_alone_knows_the_means(ranks: Ranks) -> None:
    """A share of 0 where a process has no row, never NaN."""
    none: Tensor = DealtRows(3, 4, 3).mean(torch.empty(0))
    assert none == 0 and DealtRows(3, 4, 3).held == 0
    assert ranks[0]["differing"]["thawed"].startswith("ValueError: ranks='exact' with model.bn")

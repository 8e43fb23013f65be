"""DistributedDataParallel over two processes, against one with all rows, or one after the other."""

import faulthandler
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import Method, create_method
from entprop_fast.methods import GPaCo, entprop
from entprop_fast.methods.targets import Targets, mixup
from entprop_fast.reference import entprop_step
from tests.methods.support import (
    CLASSES,
    UNMIXED,
    assert_equal,
    batch,
    dual_network,
    frozen_network,
    generator,
    gradients,
    parameters,
    plain_network,
    sgd,
    statistics,
)
from tests.processes import WORLD, group_of_one, start

ROWS = 6
Case = tuple[str, dict[str, Any]]
# Over several rows a frozen network gives the mean of what it gives for each.
AS_ONE: dict[str, Case] = {
    "vanilla": ("vanilla", {}),
    "mixprop": ("mixprop", UNMIXED["mixprop"]),
    "advprop": ("advprop", {"n": 2, "random_start": False}),
    "free_at": ("free_at", {"replays": 2}),
    "entprop": ("entprop", {"k": 0.5, "n": 2, "selection": "global", "mixup": 0.0}),
    "mixed": ("entprop", {"k": 0.5, "selection": "global", "aux_labels": "mixed"}),
    "clipped": ("entprop", {"k": 1.0, "mixup": 0.0, "max_grad_norm": 0.01}),
}
# Without a word between the ranks but the last: each can be repeated alone.
SEPARATE: dict[str, Case] = {
    **{name: (name, {}) for name in ("vanilla", "mixup", "cutmix", "mixprop", "entprop")},
    "free_at": ("free_at", {"replays": 1}),
    "advprop": ("advprop", {"n": 2}),
    "entprop_pipelined": ("entprop_pipelined", {}),
    "accumulating": ("entprop", {"n": 3, "accumulate": "all"}),
    "equalized": ("entprop", {"k": 0.5, "equalize": True}),
    "gpaco": ("entprop", {"criterion": "gpaco"}),
}
# Ranks that exchange rows, too.
TOGETHER: dict[str, Case] = {
    "fast_advprop": ("fast_advprop", {"p_adv": 0.5}),
    "global": ("entprop", {"k": 0.5, "selection": "global"}),
}


def own_batch(rank: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    images, labels = batch(WORLD * ROWS, seed=seed)
    return images[rank * ROWS :][:ROWS], labels[rank * ROWS :][:ROWS]


def method_of(
    case: Case, rank: int, *, model: nn.Module | None = None, wrap: bool = True, **ddp: Any
) -> Method:
    name, options = case[0], {"generator": generator(rank), **case[1]}
    model = dual_network() if model is None else model
    learned = list(model.parameters())
    if options.get("criterion") == "gpaco":
        options["criterion"] = GPaCo(CLASSES).double()
        options["criterion"].centres.data += rank if wrap else 0  # rank 0's count
        learned += options["criterion"].parameters()
    optimizer = torch.optim.SGD(learned, lr=0.1, momentum=0.9)
    model = DistributedDataParallel(model, **ddp) if wrap else model
    return create_method(name, model, optimizer, **options)


def all_gradients(method: Method) -> dict[str, Tensor | None]:
    return gradients(nn.ModuleList(filter(None, (method.model, method.criterion))))


def all_parameters(method: Method) -> dict[str, Tensor]:
    return parameters(nn.ModuleList(filter(None, (method.model, method.criterion))))


def one_step(case: Case, rank: int, **options: Any) -> dict[str, Any]:
    method = method_of(case, rank, **options)
    result = method(*own_batch(rank))._asdict()
    found = {"gradients": all_gradients(method), "parameters": all_parameters(method)}
    return {**found, "result": result, "rows": method.rows}


def accumulated(rank: int) -> dict[str, Any]:
    model = DistributedDataParallel(frozen_network())
    method = create_method("vanilla", model, sgd(model))
    with model.no_sync():
        method.backward(*own_batch(rank, 0))
        before = gradients(method.model)
    method.backward(*own_batch(rank, 1))
    return {"before": before, "after": gradients(method.model)}


def moved_statistics(rank: int, **ddp: Any) -> dict[str, Any]:
    """Of the first norm after two steps on the same batch, with weights that stay."""
    model = DistributedDataParallel(plain_network(), **ddp)
    method = create_method("vanilla", model, torch.optim.SGD(model.parameters(), lr=0.0))
    for _ in range(2):
        method(*own_batch(rank))
    return statistics(method.model)


def after_a_forward_without_backward(rank: int) -> dict[str, Any]:
    """As when somebody looks at the outputs of the wrapper outside of `no_grad`."""
    model = DistributedDataParallel(dual_network())
    method = create_method("entprop", model, sgd(model), mixup=0.0)
    model.eval()
    model(own_batch(rank)[0])
    model.train()
    method(*own_batch(rank))
    return {"parameters": parameters(method.model)}


def end_at_once(rank: int) -> None:
    """The end of a script, again and again, as if nobody else had time to ask for the GIL."""
    faulthandler.dump_traceback_later(30, exit=True)
    sys.setswitchinterval(1000)
    for _ in range(50):
        with group_of_one():
            model = DistributedDataParallel(plain_network())
            create_method("vanilla", model, sgd(model))
            exchanged = torch.ones(1)
            distributed.all_reduce(exchanged)
        del model
    faulthandler.cancel_dump_traceback_later()


def run_rank(rank: int) -> dict[str, Any]:
    once = AS_ONE | {"fast_advprop": TOGETHER["fast_advprop"]}
    found: dict[str, Any] = {
        f"one {key}": one_step(case, rank, model=frozen_network()) for key, case in once.items()
    }
    found |= {key: one_step(case, rank) for key, case in (SEPARATE | TOGETHER).items()}
    found["unused parameters"] = one_step(
        SEPARATE["entprop"], rank, find_unused_parameters=True, gradient_as_bucket_view=True
    )
    found["accumulated"] = accumulated(rank)
    found["broadcast"] = moved_statistics(rank)
    found["own statistics"] = moved_statistics(rank, broadcast_buffers=False)
    found["after a forward"] = after_a_forward_without_backward(rank)
    return found


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


def mean(both: list[dict[str, Tensor | None]]) -> dict[str, Tensor | None]:
    """Of two ranks' gradients; None where there is none."""
    pairs = {name: (value, both[1][name]) for name, value in both[0].items()}
    return {
        name: None if one is None or other is None else (one + other) / WORLD
        for name, (one, other) in pairs.items()
    }


def mixed_as_the_ranks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each half of the rows among themselves, with its own lam."""
    halves = [mixup(*own_batch(rank), 1.0, generator(rank)) for rank in range(WORLD)]
    images = torch.cat([images for images, _ in halves])
    parts = [(t.labels, t.labels_b, t.lam.expand(ROWS)) for _, t in halves if t.lam is not None]
    labels, labels_b, lam = (torch.cat(values) for values in zip(*parts, strict=True))
    targets = Targets(labels, labels_b, lam)
    monkeypatch.setattr(entprop, "mixed", lambda *_: (images, targets))


@pytest.mark.parametrize("key", AS_ONE)
def test_a_frozen_network_learns_what_one_process_learns(
    key: str, ranks: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = method_of(AS_ONE[key], 0, model=frozen_network(), wrap=False)
    if key == "mixed":
        mixed_as_the_ranks_do(monkeypatch)
    method(*batch(WORLD * ROWS))
    for found in ranks:
        close(found[f"one {key}"]["gradients"], all_gradients(method))
        close(found[f"one {key}"]["parameters"], all_parameters(method))


@pytest.mark.parametrize("key", SEPARATE)
def test_gradients_are_the_mean_of_those_of_the_ranks_alone(
    key: str, ranks: list[dict[str, Any]]
) -> None:
    alone = [method_of(SEPARATE[key], rank, wrap=False) for rank in range(WORLD)]
    results = [method(*own_batch(rank)) for rank, method in enumerate(alone)]
    expected = mean(list(map(all_gradients, alone)))
    if key == "vanilla":
        assert expected["0.bn1.aux_bn.weight"] is None  # not even a zero, which would decay
    for found, result in zip(ranks, results, strict=True):
        close(found[key]["gradients"], expected)
        close(found[key]["result"], result._asdict())  # of the rank's own rows
    if key == "entprop":
        close(ranks[0][key]["gradients"], {f"0.{n}": g for n, g in by_the_reference().items()})


def by_the_reference() -> dict[str, Tensor | None]:
    models = [dual_network() for _ in range(WORLD)]
    for rank, model in enumerate(models):
        entprop_step(model, sgd(model), *own_batch(rank), generator=generator(rank))
    return mean([gradients(model) for model in models])


def test_fast_advprop_learns_from_the_rows_of_all_ranks(ranks: list[dict[str, Any]]) -> None:
    """Which rank has a shuffled row is all the same to a frozen network."""
    case = TOGETHER["fast_advprop"]
    alone = [method_of(case, r, model=frozen_network(), wrap=False) for r in range(WORLD)]
    for rank, method in enumerate(alone):
        method(*own_batch(rank))
    for found in ranks:
        close(found["one fast_advprop"]["gradients"], mean(list(map(all_gradients, alone))))


@pytest.mark.parametrize("key", [*SEPARATE, *TOGETHER])
def test_the_ranks_stay_alike_bit_for_bit(key: str, ranks: list[dict[str, Any]]) -> None:
    """After one step; test_unequal_ranks.py takes two."""
    for name in ("parameters", "gradients", "rows"):  # each counts its own
        assert_equal(*(found[key][name] for found in ranks))


def test_options_of_the_wrapper_s_own_backward_change_nothing(ranks: list[dict[str, Any]]) -> None:
    for found in ranks:
        assert_equal(found["unused parameters"], found["entprop"])


def test_no_sync_accumulates(ranks: list[dict[str, Any]]) -> None:
    alone = []
    for rank in range(WORLD):
        model = frozen_network()
        method = create_method("vanilla", model, sgd(model))
        method.backward(*own_batch(rank, 0))
        assert_equal(ranks[rank]["accumulated"]["before"], gradients(model))
        method.backward(*own_batch(rank, 1))
        alone.append(gradients(model))
    for found in ranks:
        close(found["accumulated"]["after"], mean(alone))


def test_statistics_start_from_those_of_rank_0_or_stay_at_home(ranks: list[dict[str, Any]]) -> None:
    conv = plain_network().get_submodule("conv1")
    means = [conv(own_batch(rank)[0]).mean(dim=(0, 2, 3)).detach() for rank in range(WORLD)]
    for rank, found in enumerate(ranks):
        for key, first in (("broadcast", 0), ("own statistics", rank)):
            expected = 0.9 * 0.1 * means[first] + 0.1 * means[rank]
            close(found[key]["bn1.running_mean"], expected)
            assert found[key]["bn1.num_batches_tracked"] == 2


def test_a_forward_through_the_wrapper_leaves_the_step_alone(ranks: list[dict[str, Any]]) -> None:
    assert_equal(ranks[0]["after a forward"], ranks[1]["after a forward"])


def test_the_end_of_a_script_does_not_hang() -> None:
    """torch's reducer would free the process group with the GIL held, for which gloo may wait."""
    start(end_at_once)

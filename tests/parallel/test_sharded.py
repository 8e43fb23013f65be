"""Networks that fully_shard splits (FSDP2, HSDP) and ZeRO-1 learn what DDP does, in float64."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import create_method, strip_auxiliary
from entprop_fast.parallel.sharded_checkpoint import load_sharded
from tests.methods.support import assert_equal, batch, dual_network
from tests.parallel import sharded_work as work
from tests.parallel.sharded_work import ADAMW, CASES, IN_FOUR, SGD, make, own_batch, shard
from tests.processes import in_two_processes

Ranks = list[dict[str, Any]]
RUNS: dict[str, tuple[work.Case, Any, dict[str, Any]]] = {
    # After a step no gradient has reached the auxiliary norms, and no row has waited.
    "vanilla": (CASES["vanilla"], torch.optim.AdamW, ADAMW),
    "entprop_pipelined": (CASES["entprop_pipelined"], torch.optim.SGD, SGD),
    "free_at": (CASES["free_at"], torch.optim.SGD, {"lr": 0.1}),
}


def refusals(rank: int) -> dict[str, str]:
    """What one rank does otherwise is an error in both, and both go on."""
    method = make(("entprop", {"k": 0.5, "n": 1 + rank}), shard(work.network()))
    with pytest.raises(ValueError) as options:
        method(*own_batch(rank, 0))
    method.n = 1  # type: ignore[attr-defined]
    images, labels = own_batch(rank, 0)
    with pytest.raises(ValueError) as refused:
        method(images - rank, labels)
    with pytest.raises(ValueError) as shape:  # which only the model can tell
        method(images[:, :1], labels)
    method(images, labels)
    rows = make(CASES["fast_advprop"], shard(work.network()))
    with pytest.raises(ValueError) as unequal:
        rows(images[: 6 - rank], labels[: 6 - rank])
    errors = {"options": options, "refused": refused, "shape": shape, "rows": unequal}
    return {name: str(error.value) for name, error in errors.items()}


def on_two(rank: int, folder: str) -> dict[str, Any]:
    wrapped, split = DistributedDataParallel(work.network()), shard(work.network())
    case = CASES["equalized"]
    return {
        "split": work.against_ddp(shard, CASES),
        "accumulated": (
            work.accumulated(make(case, wrapped), ddp=wrapped),
            work.accumulated(make(case, split), fsdp=split),
        ),
        "zero": work.zero(),
        "halves": work.in_halves(),
        "refusals": refusals(rank),
        **{key: work.resumed(folder, *run) for key, run in RUNS.items()},
    }


def on_four(rank: int, folder: str) -> dict[str, Any]:
    """Copies start from the first one's weights, whatever their own seed."""
    return {
        "split": work.against_ddp(work.hybrid, IN_FOUR, seed=rank // 2),
        **{key: work.loaded(folder, *run) for key, run in RUNS.items()},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def two(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What each of two processes found."""
    return in_two_processes(partial(on_two, folder=str(folder)), tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four(folder: Path, two: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What each of four found, after two have saved."""
    there = tmp_path_factory.mktemp("four")
    return in_two_processes(partial(on_four, folder=str(folder)), there, world=4)


def close(actual: Any, expected: Any) -> None:
    assert_equal(actual, expected, tolerance=1e-12)


@pytest.mark.parametrize("key", CASES)
def test_parts_learn_what_copies_do(key: str, two: Ranks) -> None:
    for found in two:
        copies, parts = found["split"][key]
        close(parts, copies)


@pytest.mark.parametrize("key", IN_FOUR)
def test_copies_of_parts_do_too(key: str, four: Ranks) -> None:
    for found in four:
        copies, parts = found["split"][key]
        close(parts, copies)


def test_gradients_are_averaged_once_where_batches_are_added_up(two: Ranks) -> None:
    for found in two:
        copies, parts = found["accumulated"]
        close(parts, copies)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_states_may_be_split_alone(name: str, two: Ranks) -> None:
    for found in two:
        close(found["zero"][name][1], found["zero"][name][0])


def test_parameters_may_be_bfloat16_within_the_passes(two: Ranks) -> None:
    """Gradients are as far from float32's as rounding makes them, statistics stay float32."""
    halves, full = two[0]["halves"]["bfloat16"], two[0]["halves"]["float32"]
    one, other = (torch.cat([g.flatten() for g in f["gradients"].values()]) for f in (halves, full))
    assert torch.cosine_similarity(one, other, dim=0) > 0.99 and not torch.equal(one, other)
    kinds = {value.dtype for value in halves["statistics"].values() if value.is_floating_point()}
    assert kinds == {torch.float32}


def test_what_one_process_refuses_all_do(two: Ranks) -> None:
    for found in two:
        told = found["refusals"]
        assert "rank 0 has {'n': 1}, rank 1 has {'n': 2}" in told["options"]
        assert "input_range" in told["refused"] and "(6, 1, 6, 6)" in told["shape"]
        assert "rank 0 has {'rows of the batch': 6}" in told["rows"]


@pytest.mark.parametrize("key", RUNS)
def test_a_run_goes_on_to_the_bit(key: str, two: Ranks) -> None:
    for found in two:
        assert_equal(found[key]["resumed"], found[key]["went on"])
        assert found[key]["saved"]["rows"] < found[key]["went on"]["rows"]


@pytest.mark.parametrize("key", RUNS)
def test_another_number_of_processes_loads_it(key: str, two: Ranks, four: Ranks) -> None:
    saved = two[0][key]["saved"]
    for found in four:
        assert_equal(found[key]["parameters"], saved["parameters"])
        # Those of rank 0: its own rows were the last to move them.
        assert_equal(found[key]["statistics"], saved["statistics"])
        (warned,) = found[key]["warned"]
        assert "is of 2 processes" in warned and "4 go on" in warned and "generator" in warned
        assert found[key]["rows"] * 2 == saved["rows"]  # of each process
        reached = {name for name, gradient in saved["gradients"].items() if gradient is not None}
        assert found[key]["states"].keys() == (reached if key != "free_at" else set())
        for name, state in found[key]["states"].items():
            if "momentum_buffer" in state:  # of one step
                close(state["momentum_buffer"], saved["gradients"][name])
            else:
                assert state["step"] == 1
                close(state["exp_avg"], 0.1 * saved["gradients"][name])


def test_one_process_loads_it_without_a_group_and_deploys(two: Ranks, folder: Path) -> None:
    assert not distributed.is_initialized()
    network = dual_network(seed=3)
    method = create_method("vanilla", network, torch.optim.AdamW(network.parameters(), **ADAMW))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        method.generator = torch.Generator()
        load_sharded(method, folder / "vanilla-AdamW")
    saved = two[0]["vanilla"]["saved"]
    assert_equal({f"0.{n}": p.detach() for n, p in network.named_parameters()}, saved["parameters"])
    network.eval()
    before = network(batch()[0])
    close(strip_auxiliary(network)(batch()[0]), before)

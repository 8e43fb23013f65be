"""Captured steps of several processes, cut where they speak, beside eager ones; a group of one."""

import faulthandler
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import Method, create_method
from entprop_fast.capture import capturable_optimizer, graphs
from tests.capture.recording import RecordingGraphs
from tests.capture.support import adam, sgd
from tests.methods.support import (
    assert_equal,
    batch,
    dual_network,
    generator,
    gradients,
    parameters,
)
from tests.processes import group_of_one, in_two_processes

STEPS = 6
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vanilla": ("vanilla", {}),
    "entprop": ("entprop", {"k": 0.5, "n": 2, "max_grad_norm": 0.05, "amp": "bf16"}),
    "entprop_pipelined": ("entprop_pipelined", {}),
    "equalized": ("entprop", {"k": 0.5, "equalize": True}),
}
CAPTURED = ((False, False), (False, True), (True, True))  # of each rank


def of(key: str, rank: int, recorder: RecordingGraphs | None, optimizer: Any = sgd) -> Method:
    """A wrapped network's method, whose steps are captured where there is a recorder."""
    name, options = CASES[key]
    model = DistributedDataParallel(dual_network(dtype=torch.float32))
    held = optimizer(model)
    capturable_optimizer(held, torch.device("cpu"))
    capture = "off" if recorder is None else "on"
    method = create_method(name, model, held, generator=generator(rank), capture=capture, **options)
    if recorder is not None:
        recorder.method = method
    return method


def given(rank: int, seed: int) -> tuple[Tensor, Tensor]:
    return batch(12 - 2 * rank, seed=2 * seed + rank, dtype=torch.float32)


def state(method: Method) -> dict[str, Any]:
    return {"parameters": parameters(method.model), "gradients": gradients(method.model)}


def steps(key: str, rank: int, recorder: RecordingGraphs | None, **o: Any) -> dict[str, Any]:
    method = of(key, rank, recorder, **o)
    losses = [method(*given(rank, seed)).loss for seed in range(STEPS)]
    return {**state(method), "losses": torch.stack(losses), "rows": method.rows}


def accumulated(rank: int, recorder: RecordingGraphs | None) -> dict[str, Any]:
    """As the trainer does: three batches a step, of which the last averages."""
    method = of("entprop", rank, recorder)
    wrapper: Any = method._replicas
    for seed in range(15):
        if seed % 3 == 0:
            method.optimizer.zero_grad()
        if seed % 3 < 2:
            with wrapper._wrapper.no_sync():
                method.backward(*given(rank, seed), weight=1 / 3)
        else:
            method.backward(*given(rank, seed), weight=1 / 3)
            method.apply_gradients()
    return {**state(method), "rows": method.rows}


def refused(rank: int, recorder: RecordingGraphs | None) -> dict[str, Any]:
    """Rank 1's labels are wrong once; the captured rank is told, and both go on."""
    method = of("entprop", rank, recorder)
    for seed in range(STEPS):
        images, labels = given(rank, seed)
        if seed == 4:
            before = parameters(method.model)
            with pytest.raises(ValueError, match="labels hold"):
                method(images, labels + 99 * rank)
            assert_equal(parameters(method.model), before)
        method(images, labels)
    return state(method)


def run_rank(rank: int) -> dict[str, Any]:
    faulthandler.dump_traceback_later(240, exit=True)
    recorder = RecordingGraphs()
    graphs.GRAPHS["cpu"] = lambda _: recorder
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for which, captured in enumerate(CAPTURED):
            own = recorder if captured[rank] else None
            for key in CASES:
                recorder.log.clear()
                found[f"{key} {which}"] = steps(key, rank, own)
                found[f"{key} {which}"]["log"] = "".join(word[0] for word in recorder.log)
            found[f"adam {which}"] = steps("entprop", rank, own, optimizer=adam)
            recorder.log.clear()
            found[f"accumulated {which}"] = accumulated(rank, own)
            found[f"accumulated {which}"]["log"] = "".join(word[0] for word in recorder.log)
            found[f"refused {which}"] = refused(rank, own)
    faulthandler.cancel_dump_traceback_later()
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_two_processes(run_rank, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("key", [*CASES, "adam", "accumulated", "refused"])
def test_captured_and_eager_ranks_take_the_same_steps(
    key: str, ranks: list[dict[str, Any]]
) -> None:
    for found in ranks:
        logs = [found[f"{key} {which}"].pop("log", "") for which in range(3)]
        # What was there is added to the sum of the passes, not the passes to what was there.
        tolerance = 1e-6 if key == "accumulated" else 0
        for which in (1, 2):
            assert_equal(found[f"{key} {which}"], found[f"{key} 0"], tolerance=tolerance)
        assert logs[0] == ""
        if key == "accumulated":
            assert logs[2] == "eee" + "c" + 12 * "r"  # no optimiser's step among them
        elif key in CASES:
            warm = 4 if key == "entprop_pipelined" else 3
            assert logs[2] == "e" * warm + "cc" + "rr" * (STEPS - warm)
    for which in range(3):
        one, other = (found[f"{key} {which}"] for found in ranks)
        for name in ("parameters", "gradients"):
            assert_equal(one[name], other[name])


def test_only_one_rank_was_captured(ranks: list[dict[str, Any]]) -> None:
    assert torch.equal(ranks[0]["vanilla 1"]["losses"], ranks[0]["vanilla 0"]["losses"])


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_group_of_one_has_the_step_of_a_process_alone(
    recorder: RecordingGraphs, wrapped: bool
) -> None:
    """Fault 5: any process group switched capture off."""

    def run(method: Method) -> dict[str, Any]:
        for seed in range(STEPS):
            method(*given(0, seed))
        return state(method)

    alone = create_method(
        "entprop", model := dual_network(dtype=torch.float32), sgd(model), generator=generator()
    )
    recorder.method = alone
    expected = run(alone)
    recorder.log.clear()
    with group_of_one():
        network: nn.Module = dual_network(dtype=torch.float32)
        model = DistributedDataParallel(network) if wrapped else network  # type: ignore[assignment]
        method = create_method("entprop", model, sgd(network), generator=generator())
        recorder.method = method
        assert_equal(run(method), expected)
    assert "".join(word[0] for word in recorder.log) == "eeecrrr"  # one graph

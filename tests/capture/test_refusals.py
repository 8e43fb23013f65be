"""What cannot be captured: one warning that names it and eager steps, or an error with "on"."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import register_optimizer_step_pre_hook

from entprop_fast import Method
from entprop_fast.methods import running
from tests.capture import support
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Twins, make
from tests.methods.support import batch, dual_network, everything
from tests.processes import group_of_one


class OwnSGD(torch.optim.SGD):
    """May step otherwise."""


@contextmanager
def _one_warning(match: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told = [one for one in caught if one.category is RuntimeWarning]
    assert len(told) == 1 and match in str(told[0].message), [str(one.message) for one in told]
    assert told[0].filename in (__file__, support.__file__)  # the caller's line


def _steps(method: Method, times: int = 6) -> None:
    for seed in range(times):
        method(*batch(seed=seed, dtype=torch.float32))


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        (torch.optim.RMSprop, {}, "RMSprop cannot be captured"),
        (OwnSGD, {}, "OwnSGD cannot be captured"),
        (torch.optim.SGD, {"differentiable": True}, "optimizer.param_groups[0] is differentiable"),
        (torch.optim.SGD, {"dampening": 0.5}, "optimizer.param_groups[0] has dampening=0.5"),
    ],
)
def test_optimizers(
    recorder: RecordingGraphs, kind: Any, change: dict[str, Any], named: str
) -> None:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = kind(model.parameters(), lr=0.01, momentum=0.9)
        made.param_groups[0].update(change)
        return made

    method = make("vanilla", optimizer=optimizer)
    groups = copy.deepcopy([{**g, "params": 0} for g in method.optimizer.param_groups])
    with _one_warning(named):
        _steps(method)
    assert recorder.log == []
    assert method.captures.replays == 0 and method.captures.why_eager is not None
    assert [{**g, "params": 0} for g in method.optimizer.param_groups] == groups
    with pytest.raises(ValueError, match="capture='on'") as refused:
        make("vanilla", optimizer=optimizer, capture="on")
    assert named in str(refused.value)


def _layer(method: Method) -> nn.Module:
    return method.model.get_submodule("conv2")


def _weight(method: Method) -> nn.Parameter:
    return method.model.get_parameter("conv2.weight")


def _ignore(*_: Any) -> None: ...


HOOKS: list[tuple[Callable[[Method], Any], str]] = [
    (lambda m: _layer(m).register_forward_hook(_ignore), "model.conv2 (Conv2d) has a hook"),
    (lambda m: _layer(m).register_full_backward_hook(_ignore), "model.conv2 (Conv2d) has a hook"),
    (lambda m: _weight(m).register_hook(_ignore), "model.conv2.weight has a hook"),
    (
        lambda m: _weight(m).register_post_accumulate_grad_hook(_ignore),
        "model.conv2.weight has a hook",
    ),
    (lambda _: torch_module.register_module_forward_hook(_ignore), "every module has a hook"),
    (lambda m: m.optimizer.register_step_post_hook(_ignore), "the optimizer has a hook"),
    (lambda _: register_optimizer_step_pre_hook(_ignore), "every optimizer has a hook"),
]


@pytest.mark.parametrize(
    ("register", "named", "steps"),
    [(*hook, 4) for hook in HOOKS] + [(*HOOKS[0], 0), (*HOOKS[2], 2)],
)
def test_hooks(
    recorder: RecordingGraphs, register: Callable[[Method], Any], named: str, steps: int
) -> None:
    """With a graph at hand, before the first step, and during the warm-up."""
    method = make()
    recorder.method = method
    _steps(method, steps)
    handle = register(method)
    recorder.log.clear()
    try:
        with _one_warning(named):
            _steps(method, 4)
        assert "replay" not in recorder.log
    finally:
        handle.remove()


@pytest.mark.parametrize(("register", "named"), HOOKS[:4:3])
def test_hooks_with_on(
    recorder: RecordingGraphs, register: Callable[[Method], Any], named: str
) -> None:
    method = make(capture="on")
    recorder.method = method
    _steps(method, 5)
    before = everything(method)
    handle = register(method)
    try:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="capture='on'") as refused:
                _steps(method, 1)
            assert named in str(refused.value)
    finally:
        handle.remove()
    assert everything(method)["rows"] == before["rows"]


def test_our_own_hooks_do_not_count(recorder: RecordingGraphs) -> None:
    """An auxiliary pass holds the statistics of a norm without an auxiliary half by hooks."""
    model = dual_network(dtype=torch.float32)
    model.add_module("flat", nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6)))
    method = make(model=model)
    recorder.method = method
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _steps(method)
    assert recorder.log.count("replay") == 3


def test_a_step_that_cannot_be_captured_is_taken_eagerly(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    recorder.fails = RuntimeError("operation not permitted when stream is capturing\nlong story")
    with _one_warning("failed (operation not permitted when stream is capturing); they run"):
        for _ in range(6):
            twins.step()
    assert twins.said() == "eee" + "cc"  # a second try
    assert twins.captured.captures.replays == 0


def test_a_second_try_takes_up_where_the_first_began(recorder: RecordingGraphs) -> None:
    """Gradients, generators, attributes and values: `Twins` compares them all."""
    twins = Twins(recorder, "entprop", capture="on", mixup=0.5)
    recorder.fails, recorder.failures = RuntimeError("a loss was still held"), 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        twins.step(6)
    assert twins.said() == "eee" + "cc" + "rrr"
    assert twins.captured.captures.why_eager is None


@pytest.mark.parametrize("waits", [False, True])
def test_a_step_that_cannot_be_captured_with_on_is_not_taken(
    recorder: RecordingGraphs, waits: bool
) -> None:
    method = make(capture="on")
    recorder.method = method
    recorder.waits_at = "model.py:37" if waits else None
    recorder.fails = None if waits else torch.OutOfMemoryError("out of memory")
    _steps(method, 3)
    method.optimizer.zero_grad()  # a step, and so a capture, discards the gradients
    before = everything(method)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"capture='on': .*(model.py:37|out of memory)"):
            _steps(method, 1)
    for name, value in everything(method).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert recorder.log.count("capture") == (0 if waits else 2)


def test_an_interrupted_capture_can_be_tried_again(recorder: RecordingGraphs) -> None:
    method = make()
    recorder.method = method
    _steps(method, 3)
    recorder.fails = KeyboardInterrupt()  # type: ignore[assignment]
    rows = method.rows
    with pytest.raises(KeyboardInterrupt):
        _steps(method, 1)
    assert method.rows == rows
    recorder.fails = None
    _steps(method, 1)
    assert recorder.log[-2:] == ["capture", "replay"]


def test_a_step_that_waits_for_the_device(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    recorder.waits_at = "model.py:37"
    with _one_warning("the step waits for the device, at model.py:37"):
        for _ in range(6):
            twins.step()
    assert twins.said() == "eee"


def test_rows_of_other_processes(
    recorder: RecordingGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "world_size", lambda: 2)
    named = "the processes exchange rows"
    with group_of_one():
        model = DistributedDataParallel(dual_network(dtype=torch.float32))
        method = make(model=model, selection="global")
        with _one_warning(f"steps are not captured: {named}"):
            _steps(method)
        assert recorder.log == []
        with _one_warning(f"method.backward is not captured: {named}"):
            for _ in range(2):
                method.backward(*batch(dtype=torch.float32))
        with pytest.raises(ValueError, match=f"capture='on': {named}"):
            make(model=model, capture="on", selection="global")


def test_synchronised_norms(recorder: RecordingGraphs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "world_size", lambda: 2)
    model = dual_network(dtype=torch.float32)
    model.add_module("late", nn.SyncBatchNorm(5))
    with pytest.raises(ValueError, match=r"capture='on': model.late is a SyncBatchNorm"):
        make(model=model, capture="on")

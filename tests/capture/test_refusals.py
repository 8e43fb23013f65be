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
from tests.capture import support
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Twins, make, sgd
from tests.methods.support import batch, dual_network, everything
from tests.processes import group_of_one


class OwnSGD(torch.optim.SGD):
    """May step otherwise."""


def _rmsprop(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(model.parameters(), lr=0.01)


def _own_sgd(model: nn.Module) -> torch.optim.Optimizer:
    return OwnSGD(model.parameters(), lr=0.01)


def _differentiable(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.param_groups[0]["differentiable"] = True
    return optimizer


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
    ("optimizer", "named"),
    [
        (_rmsprop, "RMSprop cannot be captured"),
        (_own_sgd, "OwnSGD cannot be captured"),
        (_differentiable, "optimizer.param_groups[0] is differentiable"),
    ],
)
def test_optimizers(
    recorder: RecordingGraphs, optimizer: Callable[[nn.Module], Any], named: str
) -> None:
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


def _forward_hook(method: Method) -> Any:
    return method.model.get_submodule("conv2").register_forward_hook(lambda *_: None)


def _backward_hook(method: Method) -> Any:
    return method.model.get_submodule("conv2").register_full_backward_hook(lambda *_: None)


def _parameter_hook(method: Method) -> Any:
    return method.model.get_parameter("conv2.weight").register_hook(lambda grad: None)


def _accumulated_hook(method: Method) -> Any:
    parameter = method.model.get_parameter("conv2.weight")
    return parameter.register_post_accumulate_grad_hook(lambda parameter: None)


def _global_hook(method: Method) -> Any:
    return torch_module.register_module_forward_hook(lambda *_: None)


def _optimizer_hook(method: Method) -> Any:
    return method.optimizer.register_step_post_hook(lambda *_: None)


def _every_optimizer_hook(method: Method) -> Any:
    return register_optimizer_step_pre_hook(lambda *_: None)


HOOKS = [
    (_forward_hook, "model.conv2 (Conv2d) has a hook"),
    (_backward_hook, "model.conv2 (Conv2d) has a hook"),
    (_parameter_hook, "model.conv2.weight has a hook"),
    (_accumulated_hook, "model.conv2.weight has a hook"),
    (_global_hook, "every module has a hook"),
    (_optimizer_hook, "the optimizer has a hook"),
    (_every_optimizer_hook, "every optimizer has a hook"),
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
    assert twins.said() == "eeec"
    assert twins.captured.captures.replays == 0


def test_a_step_that_cannot_be_captured_with_on_is_not_taken(recorder: RecordingGraphs) -> None:
    method = make(capture="on")
    recorder.method = method
    _steps(method, 3)
    recorder.fails = torch.OutOfMemoryError("out of memory")
    method.optimizer.zero_grad()  # a step, and so a capture, discards the gradients
    before = everything(method)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="capture='on': capturing the step failed"):
            _steps(method, 1)
    for name, value in everything(method).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert recorder.log.count("capture") == 1


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


def test_a_step_that_waits_for_the_device_with_on(recorder: RecordingGraphs) -> None:
    method = make(capture="on")
    recorder.method = method
    recorder.waits_at = "model.py:37"
    _steps(method, 3)
    rows = method.rows
    with pytest.raises(RuntimeError, match=r"capture='on': .* at model.py:37"):
        _steps(method, 1)
    assert method.rows == rows


@pytest.fixture
def process_group() -> Iterator[None]:
    with group_of_one():
        yield


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("options", [{}, {"selection": "global"}])
def test_a_process_group(recorder: RecordingGraphs, options: dict[str, Any]) -> None:
    method = make(optimizer=sgd, **options)
    with _one_warning("a process group is initialised"):
        _steps(method)
    assert recorder.log == []


@pytest.mark.usefixtures("process_group")
def test_a_model_in_distributed_data_parallel(recorder: RecordingGraphs) -> None:
    model = DistributedDataParallel(dual_network(dtype=torch.float32))
    method = make(model=model)
    with _one_warning("a process group is initialised"):
        _steps(method)
    assert recorder.log == []
    with pytest.raises(ValueError, match="capture='on': a process group is initialised"):
        make(model=model, capture="on")

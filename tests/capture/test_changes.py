"""What a captured step took from the host: a change recaptures once."""

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from entprop_fast import Method
from entprop_fast.capture import step as capture_step
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Change, MakeOptimizer, Twins, adam, adamw, group, make, sgd
from tests.methods.support import batch, generator


def _option(name: str, value: Any) -> Change:
    return lambda method: setattr(method, name, value)


def _replace_memory(method: Method) -> None:
    parameter = next(method.model.parameters())
    parameter.data = parameter.data.clone()


def _replace_buffer(method: Method) -> None:
    norm = method.model.get_submodule("bn1")
    norm.running_mean = norm.running_mean.clone() + 1  # type: ignore[operator]


def _replace_module(method: Method) -> None:
    method.model.relu2 = nn.Tanh()


def _freeze(method: Method) -> None:
    next(method.model.parameters()).requires_grad_(False)


def _eval(method: Method) -> None:
    method.model.get_submodule("bn1").eval()


def _add_group(method: Method) -> None:
    head = method.model.get_submodule("head")
    head.scale = nn.Parameter(torch.ones(6))
    method.model.flat = nn.Sequential(nn.Flatten(), _Scale(head.scale))
    method.optimizer.add_param_group({"params": [head.scale], "lr": 0.2})


class _Scale(nn.Module):
    def __init__(self, scale: nn.Parameter) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def _reload_optimizer(method: Method) -> None:
    method.optimizer.load_state_dict(copy.deepcopy(method.optimizer.state_dict()))


def _assign_model(method: Method) -> None:
    with torch.no_grad():
        state = {name: value * 1.5 for name, value in method.model.state_dict().items()}
    state = {n: v.long() if "tracked" in n else v for n, v in state.items()}
    buffers = {n: v for n, v in state.items() if "running" in n}
    method.model.load_state_dict(buffers, strict=False, assign=True)


@pytest.mark.parametrize(
    "change",
    [
        group(momentum=0.5),
        group(weight_decay=0.1),
        group(nesterov=True),
        group(maximize=True),
        _option("k", 0.6),
        _option("n", 2),
        _option("mixup", 0.0),
        _option("alpha", 0.1),
        _option("score", "margin"),
        _option("max_grad_norm", 0.01),
        _option("label_smoothing", 0.1),
        lambda method: setattr(method, "generator", generator(5)),
        lambda method: setattr(method, "criterion", nn.CrossEntropyLoss(reduction="none")),
        _replace_memory,
        _replace_buffer,
        _replace_module,
        _freeze,
        _eval,
        _add_group,
        _reload_optimizer,
        _assign_model,
    ],
)
def test_a_change_recaptures_once(recorder: RecordingGraphs, change: Change) -> None:
    twins = Twins(recorder)
    twins.step(4)
    twins.said()
    twins.both(change)
    gc.collect()  # an object that is gone must not lend its id to the one in its place
    twins.step(3)
    assert twins.said() == "ecrr"


def test_a_change_recaptures_every_shape(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(4)
    twins.step(4, rows=10)
    twins.said()
    twins.both(group(momentum=0.5))
    twins.step(3)
    twins.step(2, rows=10)
    twins.step(2)
    assert twins.said() == "ecrr" + "ecr" + "rr"


@pytest.mark.parametrize(
    ("optimizer", "change"), [(adam, group(betas=(0.5, 0.9))), (adamw, group(eps=1e-3))]
)
def test_adams_values(recorder: RecordingGraphs, change: Change, optimizer: MakeOptimizer) -> None:
    twins = Twins(recorder, optimizer=optimizer)
    twins.step(4)
    twins.said()
    twins.both(change)
    twins.step(2)
    assert twins.said() == "ecr"


def test_autocast_around_the_call(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(4)
    twins.said()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            twins.step()
    twins.step(2)
    assert twins.said() == "ecr" + "ecr"


def test_weights_cast_for_a_capture_are_its_own(
    recorder: RecordingGraphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cast before, a graph would read them for ever; cast in it, they have no values after it."""
    clear = torch.clear_autocast_cache

    def told() -> None:
        recorder.log.append("forget casts")
        clear()

    monkeypatch.setattr(torch, "clear_autocast_cache", told)
    method = make()
    recorder.method = method
    with torch.autocast("cpu", torch.bfloat16):
        for seed in range(4):
            method(*batch(seed=seed, dtype=torch.float32))
        steps = ["eager"] * 3 + ["forget casts", "capture", "forget casts", "replay"]
        assert recorder.log == steps


def test_another_optimizer(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(5)
    twins.said()
    twins.both(lambda method: setattr(method, "optimizer", adam(method.model)))
    twins.step(4)
    assert twins.said() == "eeecr"


def test_values_loaded_in_place_change_nothing(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(2)
    states = [copy.deepcopy(m.model.state_dict()) for m in (twins.captured, twins.eager)]
    draws = [m.state_dict() for m in (twins.captured, twins.eager)]
    twins.step(4)
    twins.said()
    for method, state, drawn in zip((twins.captured, twins.eager), states, draws, strict=True):
        method.model.load_state_dict(state)
        method.load_state_dict(drawn)
    twins.step(2)
    assert twins.said() == "rr"


@pytest.mark.parametrize("optimizer", [sgd, adam, adamw])
def test_resume(recorder: RecordingGraphs, optimizer: MakeOptimizer) -> None:
    """State of an earlier step, saved from a plain optimizer, continues like the plain one."""
    twins = Twins(recorder, optimizer=optimizer)
    twins.step(2)
    states = []
    for method in (twins.captured, twins.eager):
        saved = copy.deepcopy(method.optimizer.state_dict())
        for held in saved["param_groups"]:  # as a run without captures would have saved it
            held.update(lr=0.07, fused=None)
            if "capturable" in held:
                held["capturable"] = False
        states.append((saved, copy.deepcopy(method.model.state_dict()), method.state_dict()))
    twins.step(4)
    twins.said()
    for method, (saved, model, own) in zip((twins.captured, twins.eager), states, strict=True):
        method.optimizer.load_state_dict(saved)
        method.model.load_state_dict(model)
        method.load_state_dict(own)
    twins.both(lambda method: None)
    twins.step(3)
    assert twins.said() == "ecrr"
    held = twins.captured.optimizer.param_groups[0]
    assert held["fused"] is True and held.get("capturable", True) is True


def _cycled(step: int) -> Callable[[Method], None]:
    return group(momentum=0.8 + 0.01 * step)


def test_what_changes_every_step_ends_capturing_with_one_warning(
    recorder: RecordingGraphs, recwarn: pytest.WarningsRecorder
) -> None:
    twins = Twins(recorder)
    for step in range(16):
        twins.both(_cycled(step))
        twins.step()
    assert twins.said() == "eee" + "cre" * 2 + "cr"  # then past the graphs' eager, too
    (told,) = [str(one.message) for one in recwarn if one.category is RuntimeWarning]
    assert "optimizer.param_groups[0]['momentum'] changes" in told
    assert str(twins.captured.captures.why_eager) in told


def test_what_changes_every_step_with_on_raises(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder, capture="on")
    with pytest.raises(RuntimeError, match=r"capture='on': .*'momentum'.* changes every few steps"):
        for step in range(16):
            twins.both(_cycled(step))
            twins.step()


def test_rare_changes_do_not_end_capturing(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(4)
    for step in range(capture_step.SHORT_LIVES + 1):
        twins.both(_cycled(step))
        twins.step(capture_step.SHORT_LIFE + 2)
    assert twins.captured.captures.why_eager is None
    assert twins.said() == "eeecr" + ("ec" + "r" * 9) * 4

"""What a captured step took from the host: a change recaptures once."""

import copy
import gc
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from entprop_fast import Method
from entprop_fast.capture import shapes as capture_shapes
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Change, MakeOptimizer, Twins, adam, adamw, group, make, sgd
from tests.methods.support import CLASSES, assert_equal, batch, everything, generator


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
    (held,) = method.optimizer.param_groups
    method.optimizer.add_param_group({"params": [held["params"].pop()], "lr": 0.2})


def _assign_buffers(method: Method) -> None:
    state = {n: v * 1.5 for n, v in method.model.state_dict().items() if "running" in n}
    method.model.load_state_dict(state, strict=False, assign=True)


def _reload_optimizer(method: Method) -> None:
    method.optimizer.load_state_dict(copy.deepcopy(method.optimizer.state_dict()))


@pytest.mark.parametrize(
    "change",
    [
        group(momentum=0.5),
        group(nesterov=True),
        _option("k", 0.6),
        _option("mixup", 0.0),
        _option("max_grad_norm", 0.01),
        lambda method: setattr(method, "generator", generator(5)),
        lambda method: setattr(method, "criterion", nn.CrossEntropyLoss(reduction="none")),
        _replace_memory,
        _replace_buffer,
        _replace_module,
        _freeze,
        _eval,
        _add_group,
        _reload_optimizer,
        _assign_buffers,
    ],
)
def test_a_change_recaptures_once(recorder: RecordingGraphs, change: Change) -> None:
    """Of every shape that was captured."""
    twins = Twins(recorder)
    twins.step(4)
    twins.step(4, rows=10)
    twins.said()
    twins.both(change)
    gc.collect()  # an object that is gone must not lend its id to the one in its place
    twins.step(3)
    twins.step(2, rows=10)
    assert twins.said() == "ecrr" + "ecr"


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
    images, labels = batch(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            method(images, labels)
        recorder.log.clear()
        method.model(images).sum()  # of the caller's own
        method(images, labels)
        # Around the passes once more: as in each step, for the weights that step after it.
        passes = ["forget casts"] * 2
        steps = ["forget casts", "capture", *passes, "forget casts", "replay", *passes]
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


def test_what_changes_every_step_ends_capturing_with_one_warning(
    recorder: RecordingGraphs, recwarn: pytest.WarningsRecorder
) -> None:
    twins, insisting = Twins(recorder), Twins(recorder, capture="on")
    recorder.method = twins.captured
    for step in range(16):
        twins.both(group(momentum=0.8 + 0.01 * step))
        twins.step()
    assert twins.said() == "eee" + "cre" * 2 + "cr"  # then past the graphs' eager, too
    (told,) = [str(one.message) for one in recwarn if one.category is RuntimeWarning]
    assert "optimizer.param_groups[0]['momentum']" in told
    assert str(twins.captured.captures.why_eager) in told
    recorder.method = insisting.captured
    with pytest.raises(RuntimeError, match=r"capture='on': .*'momentum'"):
        for step in range(16):
            insisting.both(group(momentum=0.8 + 0.01 * step))
            insisting.step()


def test_rare_changes_do_not_end_capturing(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(4)
    for step in range(capture_shapes.SHORT_LIVES + 1):
        twins.both(group(momentum=0.8 + 0.01 * step))
        twins.step(capture_shapes.SHORT_LIFE + 2)
    assert twins.captured.captures.why_eager is None
    assert twins.said() == "eeecr" + ("ec" + "r" * 9) * 4


def test_captured_steps_belong_to_the_original(recorder: RecordingGraphs) -> None:
    """FOUND C2: the copy warms up and captures for itself; the original's graphs stay."""
    twins = Twins(recorder)
    twins.step(5)
    assert twins.said() == "eeecrr"
    original, other = twins.captured, copy.deepcopy(twins.captured)
    assert other.captures is not original.captures and other.captures.replays == 0
    twins.captured = recorder.method = other
    twins.step(5)
    assert twins.said() == "eeecrr"
    assert original.captures.replays == other.captures.replays == 2


def test_a_pickle_of_another_device_loads(recorder: RecordingGraphs) -> None:
    """FOUND C2: one that insists on capturing is refused at its call, not while it is loaded."""
    method = make("vanilla", capture="on")
    method.optimizer = torch.optim.RMSprop(method.model.parameters())  # which none captures
    other = pickle.loads(pickle.dumps(method))
    with pytest.raises(RuntimeError, match="RMSprop"):
        other(*batch(dtype=torch.float32))


def _replace_head(method: Method) -> None:
    torch.manual_seed(3)
    method.model.head = nn.Linear(6, CLASSES)


@pytest.mark.parametrize("check", [None, False])
def test_a_head_that_the_optimizer_does_not_hold(
    recorder: RecordingGraphs, check: bool | None
) -> None:
    """FOUND W10: noticed also where no value of a batch is looked at, as on a GPU."""
    twins = Twins(recorder, check=check)
    twins.step(5)
    assert twins.said() == "eeecrr"
    twins.both(_replace_head)
    for method in (twins.captured, twins.eager):
        before = everything(method)
        with pytest.raises(ValueError, match=r"optimizer lacks 2 .*model\.head\.weight"):
            method(*batch(dtype=torch.float32))
        assert_equal(everything(method), before)
        head = method.model.get_submodule("head").parameters()
        method.optimizer.add_param_group({"params": head})
    recorder.log.clear()
    twins.both(lambda method: None)
    twins.step(4)
    assert twins.said() == "ecrrr"

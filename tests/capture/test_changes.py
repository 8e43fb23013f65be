"""What a captured step took from the host: a learning rate is copied, all else recaptures once."""

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from entprop_fast import Method
from entprop_fast.capture.optimizer import CapturableForm
from tests.capture.recording import RecordingGraphs
from tests.capture.support import Change, MakeOptimizer, Twins, adam, adamw, make, sgd
from tests.methods.support import batch, generator


def _group(**values: Any) -> Change:
    return lambda method: method.optimizer.param_groups[0].update(values)


def _option(name: str, value: Any) -> Change:
    return lambda method: setattr(method, name, value)


def _fill(method: Method) -> None:
    lr = method.optimizer.param_groups[0]["lr"]
    assert isinstance(lr, torch.Tensor)
    lr.fill_(0.03)


@pytest.mark.parametrize("optimizer", [sgd, adam, adamw])
@pytest.mark.parametrize(
    "change",
    [_group(lr=0.03), _group(lr=torch.tensor(0.03, dtype=torch.float64)), _fill],
    ids=["float", "replaced", "filled"],
)
def test_a_learning_rate_takes_effect_without_a_capture(
    recorder: RecordingGraphs, change: Change, optimizer: MakeOptimizer
) -> None:
    twins = Twins(recorder, optimizer=optimizer)
    twins.step(5)
    twins.said()
    twins.both(change)
    twins.step(2)
    assert twins.said() == "rr"
    assert twins.captured.optimizer.param_groups[0]["lr"].item() == pytest.approx(0.03)


def test_a_schedule_that_sets_floats(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    for step in range(12):
        twins.both(_group(lr=0.1 / (1 + step)))
        twins.step()
    assert twins.said() == "eeec" + "r" * 9


def test_torchs_schedulers(recorder: RecordingGraphs) -> None:
    """One wraps `optimizer.step` and multiplies the lr, which by then is a tensor."""
    twins = Twins(recorder)
    schedulers = [
        torch.optim.lr_scheduler.CosineAnnealingLR(method.optimizer, 10)
        for method in (twins.captured, twins.eager)
    ]
    for _ in range(8):
        twins.step()
        for scheduler in schedulers:
            scheduler.step()
    assert twins.said() == "eeec" + "r" * 5


def test_groups_have_learning_rates_of_their_own(recorder: RecordingGraphs) -> None:
    shared = torch.tensor(0.1)

    def two_groups(model: nn.Module) -> torch.optim.Optimizer:
        parameters = list(model.parameters())
        groups = [{"params": parameters[:5]}, {"params": parameters[5:]}]
        return torch.optim.SGD(groups, lr=shared.clone(), momentum=0.9, fused=True)

    twins = Twins(recorder, optimizer=two_groups)
    twins.step(5)
    twins.both(lambda method: method.optimizer.param_groups[1].update(lr=0.5))
    twins.step(2)
    assert twins.said() == "eeec" + "r" * 4


def test_a_parameter_that_moves_to_another_group(recorder: RecordingGraphs) -> None:
    def two_groups(model: nn.Module) -> torch.optim.Optimizer:
        parameters = list(model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": parameters[:5]},
            {"params": parameters[5:], "weight_decay": 0.5},
        ]
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    def move(method: Method) -> None:
        first, second = method.optimizer.param_groups
        second["params"].insert(0, first["params"].pop())

    twins = Twins(recorder, optimizer=two_groups)
    twins.step(5)
    twins.said()
    twins.both(move)
    twins.step(3)
    assert twins.said() == "ecrr"


def test_the_users_own_tensor_is_the_captured_one(recorder: RecordingGraphs) -> None:
    rates: list[torch.Tensor] = []

    def own(model: nn.Module) -> torch.optim.Optimizer:
        rates.append(torch.tensor(0.1))
        return torch.optim.SGD(model.parameters(), lr=rates[-1], fused=True)

    twins = Twins(recorder, optimizer=own)
    twins.step(5)
    for rate in rates:
        rate.fill_(0.01)
    twins.step(2)
    assert twins.said() == "eeec" + "r" * 4
    assert twins.captured.optimizer.param_groups[0]["lr"] is rates[0]


@pytest.mark.parametrize("optimizer", [adam, adamw])
def test_counters_move_to_the_device(optimizer: MakeOptimizer) -> None:
    """Adam counts on the host until it is captured, also after a plain state was loaded."""
    weight = nn.Linear(2, 2)
    held = optimizer(weight)
    for parameter in weight.parameters():
        parameter.grad = torch.ones_like(parameter)
    held.step()
    CapturableForm(held, torch.device("meta")).restore()
    assert {state["step"].device.type for state in held.state.values()} == {"meta"}
    assert held.param_groups[0]["lr"].device.type == "meta"


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
        _group(momentum=0.5),
        _group(weight_decay=0.1),
        _group(nesterov=True),
        _group(maximize=True),
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
    twins.step(5)
    twins.step(4, rows=10)
    twins.said()
    twins.both(change)
    gc.collect()  # an object that is gone must not lend its id to the one in its place
    twins.step(4)
    twins.step(2, rows=10)
    twins.step(2)
    assert twins.said() == "ecrrr" + "ecr" + "rr"


@pytest.mark.parametrize("change", [_group(betas=(0.5, 0.9)), _group(eps=1e-3), _reload_optimizer])
@pytest.mark.parametrize("optimizer", [adam, adamw])
def test_adams_values(recorder: RecordingGraphs, change: Change, optimizer: MakeOptimizer) -> None:
    twins = Twins(recorder, optimizer=optimizer)
    twins.step(5)
    twins.said()
    twins.both(change)
    twins.step(3)
    assert twins.said() == "ecrr"


def test_autocast_around_the_call(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(5)
    twins.said()
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            twins.step()
    twins.step(3)
    assert twins.said() == "ecrr" + "ecrr"


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
    twins.step(5)
    assert twins.said() == "eeecrr"


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
        for group in saved["param_groups"]:  # as a run without captures would have saved it
            group.update(lr=0.07, fused=None)
            if "capturable" in group:
                group["capturable"] = False
        states.append((saved, copy.deepcopy(method.model.state_dict()), method.state_dict()))
    twins.step(4)
    twins.said()
    for method, (saved, model, own) in zip((twins.captured, twins.eager), states, strict=True):
        method.optimizer.load_state_dict(saved)
        method.model.load_state_dict(model)
        method.load_state_dict(own)
    twins.both(lambda method: None)
    twins.step(4)
    assert twins.said() == "ecrrr"
    assert twins.captured.optimizer.param_groups[0]["fused"] is True


def _cycled(step: int) -> Callable[[Method], None]:
    return _group(momentum=0.8 + 0.01 * step)


def test_what_changes_every_step_ends_capturing_with_one_warning(
    recorder: RecordingGraphs, recwarn: pytest.WarningsRecorder
) -> None:
    twins = Twins(recorder)
    for step in range(16):
        twins.both(_cycled(step))
        twins.step()
    assert twins.said() == "eee" + "cre" * 2 + "cr"  # then past the graphs' eager, too
    told = [str(one.message) for one in recwarn if one.category is RuntimeWarning]
    assert len(told) == 1
    assert "optimizer.param_groups[0]['momentum'] changes every few steps" in told[0]
    assert (
        twins.captured.captures.why_eager is not None
        and twins.captured.captures.why_eager in told[0]
    )


def test_what_changes_every_step_with_on_raises(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder, capture="on")
    with pytest.raises(RuntimeError, match=r"capture='on': .*'momentum'.* changes every few steps"):
        for step in range(16):
            twins.both(_cycled(step))
            twins.step()


def test_rare_changes_do_not_end_capturing(recorder: RecordingGraphs) -> None:
    twins = Twins(recorder)
    twins.step(4)
    for step in range(5):
        twins.both(_cycled(step))
        twins.step(11)
    assert twins.captured.captures.why_eager is None
    assert twins.said() == "eeecr" + ("ec" + "r" * 10) * 5

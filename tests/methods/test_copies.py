"""FOUND C2: a copy of a method goes on as the original would, to the bit, and apart from it."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import StepLR

from entprop_fast import Method, create_method, route
from entprop_fast.methods import METHODS, GPaCo
from tests.methods import support as s
from tests.processes import group_of_one, start

Parts = tuple[nn.Module, torch.optim.Optimizer, Method]


def saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "torch.save": saved,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "entprop": {"k": 0.6, "n": 2, "score": "random"},
    "advprop": {"n": 2, "k": 0.5},
    "free_at": {"replays": 2},
    **s.ONE_VIEW,
}


def learning(name: str, *, criterion: bool = True) -> Parts:
    model = s.dual_network()
    options: dict[str, Any] = {"generator": s.generator(5), "max_grad_norm": 1.0}
    learned = list(model.parameters())
    if criterion:
        options["criterion"] = GPaCo(s.CLASSES).double()
        learned += options["criterion"].parameters()
    optimizer = torch.optim.AdamW(learned, lr=0.01)
    method = create_method(name, model, optimizer, **options, **OPTIONS.get(name, {}))
    return model, optimizer, method


def go_on(method: Method, *, steps: int = 2) -> list[list[Tensor]]:
    """So many steps, the last on a smaller batch, from the same state of the default generator."""
    torch.manual_seed(7)
    rows = [12] * (steps - 1) + [8]
    return [list(method(*s.batch(count, seed=50 + i))) for i, count in enumerate(rows)]


def assert_same_future(one: Method, other: Method) -> None:
    s.assert_equal(s.everything(one), s.everything(other))
    before = s.everything(one)
    results = go_on(other)
    s.assert_equal(s.everything(one) | {"default generator": 0}, before | {"default generator": 0})
    s.assert_equal(go_on(one), results)
    s.assert_equal(s.everything(one), s.everything(other))
    for name in ("selected_index", "perturbed"):
        s.assert_equal(getattr(one, name), getattr(other, name))


def mine(method: Method) -> set[int]:
    """Where every tensor lies that a step of this method reads or writes."""
    tensors = [*method.model.parameters(), *method.model.buffers()]
    tensors += [v for s in method.optimizer.state.values() for v in s.values()]
    tensors += [v for v in vars(method).values() if isinstance(v, Tensor)]
    return {t.data_ptr() for t in tensors}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("name", METHODS)
def test_a_copy_goes_on_as_the_original(name: str, steps: int, how: str) -> None:
    """FOUND C2: alone it has a model and an optimizer of its own."""
    model, optimizer, method = learning(name)
    if steps:
        go_on(method, steps=steps)
    other = COPIES[how](method)
    assert other.model is not model and other.optimizer is not optimizer
    held = {id(p) for group in other.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for m in (other.model, other.criterion) for p in m.parameters()}
    assert not mine(method) & mine(other)
    assert_same_future(method, other)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", METHODS)
def test_copied_together_they_stay_together(name: str, how: str) -> None:
    """FOUND C2: model, optimizer and schedule beside the method are the ones that it trains."""
    model, optimizer, method = learning(name, criterion=False)
    schedule = StepLR(optimizer, 1)
    go_on(method)
    parts = {"model": model, "optimizer": optimizer, "method": method, "schedule": schedule}
    parts = COPIES[how](parts)
    other = parts["method"]
    assert other.model is parts["model"] and other.optimizer is parts["optimizer"]
    assert parts["schedule"].optimizer is other.optimizer
    assert_same_future(method, other)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", s.WITH_BACKWARD)
def test_an_accumulation_under_way_goes_on(name: str, how: str) -> None:
    """FOUND C2, a neighbour: torch's copies of parameters come without their gradients."""
    _, _, method = learning(name)
    method.backward(*s.batch())
    other = COPIES[how](method)
    for each in (method, other):
        torch.manual_seed(7)
        each.backward(*s.batch(seed=1))
        each.optimizer.step()
    s.assert_equal(s.everything(method), s.everything(other))


@pytest.mark.parametrize("how", COPIES)
def test_inside_a_route_and_of_the_default_generator(how: str) -> None:
    model = s.dual_network()
    method = create_method("entprop", model, s.sgd(model))
    go_on(method)
    with route(model, "aux"):
        other = COPIES[how](method)
    assert other.generator is None
    assert_same_future(method, other)


def test_a_compiled_model() -> None:
    torch.compiler.reset()
    compiled: Any = torch.compile(s.dual_network(), backend="eager")
    method = s.make(model=compiled, generator=s.generator(5))
    go_on(method)
    assert_same_future(method, copy.deepcopy(method))


@pytest.mark.parametrize("name", METHODS)
def test_a_shallow_copy_is_refused(name: str) -> None:
    """FOUND C2, a neighbour: it would share half of the state; the message names what to use."""
    with pytest.raises(TypeError, match=r"copy\.copy.*deepcopy.*create_method"):
        copy.copy(s.make(name))


def test_of_a_wrapped_model_the_process_group_cannot_be_copied() -> None:
    """FOUND C2, a neighbour."""
    with group_of_one():
        model = DistributedDataParallel(s.dual_network())
        method = create_method("entprop", model, s.sgd(model))
        for duplicate in COPIES.values():
            with pytest.raises(TypeError, match=r"DistributedDataParallel.*method\.state_dict\(\)"):
                duplicate(method)
        method(*s.batch())  # and the original goes on


def step_of_a_child(rank: int, method: Method, folder: str) -> None:
    """Both children share the parameters' memory, as torch has it, so only one of them steps."""
    if rank == 0:
        torch.set_num_threads(1)
        torch.save(go_on(method), f"{folder}/found.pt")


def test_a_child_process_takes_over(tmp_path: Path) -> None:
    """FOUND C2, a neighbour: what multiprocessing pickles."""
    _, _, method = learning("entprop_pipelined")
    go_on(method)
    expected = copy.deepcopy(method)
    start(step_of_a_child, method, str(tmp_path))
    s.assert_equal(torch.load(tmp_path / "found.pt"), go_on(expected))

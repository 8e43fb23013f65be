"""Every kind of norm: values and gradients by route against float64, state, copies, stripping."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import convert_dual_norm, route, strip_auxiliary
from entprop_fast.layers.dual_norm import DualNorm
from tests.layers import oracle
from tests.layers.norm_table import TABLE, GatedRMSNorm, Row

rows = pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
TARGETS: list[Any] = ["main", "aux", 2]


def made(row: Row) -> tuple[Any, Any]:
    """Return a plain norm and a dual one of the same main half, each tensor of its own value."""
    plain = row.make()
    oracle.randomize(plain)
    dual: Any = convert_dual_norm(copy.deepcopy(plain))
    assert isinstance(dual, DualNorm)
    oracle.randomize(dual.aux)
    return plain, dual


def entries(half: Any) -> Any:
    """Return a half in float64, for a formula to read its tensors and settings from."""
    twin = copy.deepcopy(half).double()
    for parameter in twin.parameters():
        parameter.requires_grad_(True)
    return twin


@rows
@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_values_and_gradients(row: Row, target: Any) -> None:
    """As those of the plain norm against float64, plus one unit of rounding."""
    plain, dual = made(row)
    m = {"main": 5, "aux": 0}.get(target, target)
    x = torch.randn(row.shape)
    grad = torch.randn(row.shape)
    main, aux = entries(plain), entries(dual.aux)
    exact = x.double().requires_grad_()
    groups = ((main, exact[:m]), (aux, exact[m:]))
    expected = torch.cat([row.truth(half, part) for half, part in groups if len(part)])
    expected.backward(grad.double())

    x.requires_grad_()
    with route(dual, target):
        y = dual(x)
    y.backward(grad)
    close(y, expected)
    close(x.grad, exact.grad)
    for half, truth, used in ((dual, main, m > 0), (dual.aux, aux, m < 5)):
        for name, parameter in half.named_parameters(recurse=False):
            if not used:
                assert parameter.grad is None
            else:
                close(parameter.grad, truth.get_parameter(name).grad)


def close(found: Any, expected: Any) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=3e-6 * max(scale, 1.0))


@rows
def test_statistics_of_a_half_move_by_its_own_rows(row: Row) -> None:
    plain, dual = made(row)
    aux = copy.deepcopy(plain)
    aux.load_state_dict(half_of(dual))
    x = torch.randn(row.shape)
    with route(dual, 2):
        dual(x)
    plain(x[:2])
    aux(x[2:])
    for name, value in (plain.state_dict() | prefixed(dual, aux.state_dict())).items():
        torch.testing.assert_close(dual.state_dict()[name], value)


@rows
def test_state_and_copies(row: Row) -> None:
    """Keys, a plain checkpoint, the class's name, copies, pickles, a second conversion."""
    plain, dual = made(row)
    keys, kind = list(plain.state_dict()), type(plain).__name__
    assert type(dual).__name__ == f"Dual{kind}" and dual.aux_name == row.aux_name
    assert sorted(dual.state_dict()) == sorted([*keys, *prefixed(dual, plain.state_dict())])
    parameters = list(dual.parameters())
    assert convert_dual_norm(dual) is dual
    assert all(a is b for a, b in zip(dual.parameters(), parameters, strict=True))

    x = torch.randn(row.shape)
    for twin in (copy.deepcopy(dual), pickle.loads(pickle.dumps(dual))):
        assert type(twin) is type(dual)
        with route(twin, 2):
            y = twin(x)
        with route(copied := copy.deepcopy(dual), 2):
            assert torch.equal(copied(x), y)

    for assign in (False, True):
        dual.load_state_dict(checkpoint := oracle.snapshot(plain), strict=True, assign=assign)
        for name, value in checkpoint.items():
            assert torch.equal(dual.state_dict()[name], value)
            assert torch.equal(half_of(dual)[name], value)
    pointers = [value.data_ptr() for value in dual.state_dict().values()]
    assert len(set(pointers)) == len(pointers)
    damaged = dict(list(dual.state_dict().items())[:-1])
    if len(keys) > 1:
        with pytest.raises(RuntimeError, match=list(dual.state_dict())[-1]):
            dual.load_state_dict(damaged)


@rows
def test_in_place_and_stripped(row: Row) -> None:
    plain = row.make()
    oracle.randomize(plain)
    model: Any = nn.Sequential(copy.deepcopy(plain), nn.Identity())
    model[0].note = note = object()
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    module, held = model[0], dict(model[0].named_parameters())
    convert_dual_norm(model)
    assert model[0] is module and module.note is note
    assert all(model[0].get_parameter(name) is p for name, p in held.items())
    x = torch.randn(row.shape)
    plain.eval(), model.eval()
    assert torch.equal(model(x), plain(x))
    with route(model, 2):
        model(x)
    assert calls == [1, 1]
    strip_auxiliary(model)
    assert type(model[0]) is type(plain) and torch.equal(model(x), plain(x))
    assert vars(model[0]).keys() == vars(plain).keys() | {"note"}
    assert model[0].state_dict().keys() == plain.state_dict().keys()


@rows
def test_an_exported_program_runs_without_us(row: Row) -> None:
    plain, dual = made(row)
    x = torch.randn(row.shape)
    program = torch.export.export(dual.eval(), (x,))
    torch.testing.assert_close(program.module()(x), plain.eval()(x))
    assert "entprop" not in str(program.graph)


def test_further_arguments_are_split_with_the_rows() -> None:
    dual: Any = convert_dual_norm(GatedRMSNorm(6))
    oracle.randomize(dual)
    x, gate = torch.randn(2, 5, 3, 6)
    for target, m in zip(TARGETS, (5, 0, 2), strict=True):
        with route(dual, target):
            y = dual(hidden=x, gate=gate, scale=2.0)
            assert torch.equal(dual(x, gate, 2.0), y)
        halves = ((dual, m), (dual.aux, 5 - m))
        weight = torch.cat([half.weight.expand(n, 1, -1) for half, n in halves])
        expected = 2 * x * gate * weight / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        torch.testing.assert_close(y, expected)


def prefixed(dual: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{dual.aux_name}.{name}": value for name, value in state.items()}


def half_of(dual: Any) -> dict[str, Tensor]:
    prefix = f"{dual.aux_name}."
    state = dual.state_dict()
    return {name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)}

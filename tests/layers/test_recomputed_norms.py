"""Norms whose tensors torch computes anew: pruned, weight- or spectrally normed, parametrised."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from entprop_fast import convert_dual_norm, create_method, route, strip_auxiliary
from entprop_fast.layers.dual_norm import DualNorm
from tests.layers import oracle

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
Change = Callable[[Any], object]


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x

    def right_inverse(self, x: Tensor) -> Tensor:
        return x / 2


def prune_twice(norm: nn.Module) -> None:
    prune.l1_unstructured(norm, "weight", 0.25)
    prune.random_unstructured(norm, "weight", 0.5)
    prune.l1_unstructured(norm, "bias", 0.5)


def parametrise_both(norm: nn.Module) -> None:
    parametrize.register_parametrization(norm, "weight", Doubled())
    parametrize.register_parametrization(norm, "bias", Doubled())


CHANGES: dict[str, Change] = {
    "weight pruned": lambda norm: prune.l1_unstructured(norm, "weight", 0.5),
    "bias pruned": lambda norm: prune.l1_unstructured(norm, "bias", 0.5),
    "pruned twice": prune_twice,
    "weight_norm": lambda norm: weight_norm(norm, "weight"),
    "spectral_norm": lambda norm: spectral_norm(norm, "weight"),
    "parametrised weight_norm": lambda norm: parametrizations.weight_norm(norm, "weight"),
    "parametrised spectral_norm": lambda norm: parametrizations.spectral_norm(norm, "weight"),
    "two parametrisations": parametrise_both,
}
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
when = pytest.mark.parametrize("before", [True, False], ids=["before", "after"])


def network(change: Change | None = None, before: bool = True, dual: bool = True) -> Any:
    """Values of its own in every tensor; changed before or after the conversion."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)
    )
    oracle.randomize(model[1])
    if change is not None and before:
        change(model[1])
    if dual:
        convert_dual_norm(model)
    if change is not None and not before:
        change(model[1])
    return model


def images() -> Tensor:
    return torch.rand(16, 3, 8, 8)


def train(model: nn.Module, steps: int = 4) -> None:
    method = create_method("entprop", model, torch.optim.SGD(model.parameters(), 0.1), n=2)
    for _ in range(steps):
        assert method(images(), torch.randint(0, 5, (16,))).loss.isfinite()


@changes
@when
def test_the_half_has_no_link_to_the_main_one(change: Change, before: bool) -> None:
    """FOUND W1: auxiliary gradients reached the main weight, and the second step died."""
    model = network(change, before)
    main = {id(p): name for name, p in model[1].named_parameters() if "aux_bn" not in name}
    aux = dict(model[1].aux_bn.named_parameters())
    assert aux and all(p.is_leaf and p.requires_grad for p in aux.values())
    assert not main.keys() & {id(p) for p in aux.values()}
    with route(model, "aux"):
        model(images()).square().sum().backward()
    assert not [name for p, name in main.items() if model[1].get_parameter(name).grad is not None]
    assert all(p.grad is not None for p in aux.values())
    train(model)


@changes
def test_a_fresh_half_gives_what_the_main_one_gives(change: Change) -> None:
    """FOUND W1: pruned alike, too: what the main half has at zero is at zero in the other."""
    model, x = network(change).eval(), images()
    main = model(x)
    with route(model, "aux"):
        torch.testing.assert_close(model(x), main)
    train(model.train())
    if prune.is_pruned(model[1]):
        for half in (model[1], model[1].aux_bn):
            pruned = [getattr(half, n) for n in ("weight", "bias") if hasattr(half, f"{n}_mask")]
            assert all((tensor == 0).any() for tensor in pruned)


@changes
@when
def test_state_dict_round_trip(change: Change, before: bool) -> None:
    """FOUND W1: a neighbour, also from the plain network's checkpoint, which fills both."""
    source, model, x = network(change, before), network(change, before), images()
    train(source)
    model.load_state_dict(source.state_dict())
    for target in ("main", "aux", 3):
        with route(source.eval(), target), route(model.eval(), target):
            assert torch.equal(model(x), source(x))
    if before:
        plain = network(change, dual=False).state_dict()
        model.load_state_dict(plain)
        for name, value in model[1].aux_bn.state_dict().items():
            assert torch.equal(value, plain[f"1.{name}"])


@changes
@when
@pytest.mark.parametrize("routed", [False, True], ids=["", "routed"])
def test_copies(change: Change, before: bool, routed: bool) -> None:
    """FOUND W1, C11: a neighbour; a copy made inside a route is not routed."""
    model, x = network(change, before).eval(), images()
    with torch.no_grad():
        expected = model(x)
        with route(model, "aux" if routed else "main"):
            twin = copy.deepcopy(model)
            torch.testing.assert_close(twin(x), expected)
        assert isinstance(twin[1], DualNorm) and not twin[1].inside
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}


@changes
@when
def test_strip_gives_a_working_norm(change: Change, before: bool) -> None:
    """FOUND C11: a norm parametrised after its conversion was left without a weight."""
    model, x = network(change, before), images()
    train(model)
    expected = model.eval()(x)
    plain = network(change, dual=False)
    assert strip_auxiliary(model) is model
    torch.testing.assert_close(model(x), expected)
    assert type(model[1]).__name__ == type(plain[1]).__name__
    assert model.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain.eval()(x), expected)
    model.train()(x).sum().backward()
    train(convert_dual_norm(model))


@when
def test_parametrisations_removed_again(before: bool) -> None:
    """FOUND C11: a neighbour."""
    model, x = network(parametrise_both, before).eval(), images()
    expected = model(x)
    for name in ("weight", "bias"):
        parametrize.remove_parametrizations(model[1], name)
    assert type(model[1]).__name__ == "DualBatchNorm2d"
    torch.testing.assert_close(model(x), expected)
    assert type(strip_auxiliary(model)[1]) is nn.BatchNorm2d
    torch.testing.assert_close(model(x), expected)


def test_pruning_made_permanent() -> None:
    """FOUND W1: a neighbour, `prune.remove` before the conversion, and after it on each half."""
    model = network(lambda norm: (prune.l1_unstructured(norm, "weight", 0.5),))
    for half in (model[1], model[1].aux_bn):
        prune.remove(half, "weight")
        assert (half.weight == 0).sum() == 4
    train(model)
    early = network(dual=False)
    prune.remove(prune.l1_unstructured(early[1], "weight", 0.5), "weight")
    train(convert_dual_norm(early))
    assert early.state_dict().keys() == model.state_dict().keys()


def test_what_nothing_known_computes_is_left_and_named() -> None:
    """FOUND W1: a neighbour, a weight that a network of the user's generates."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3))
    del model[1].weight
    model[1].weight = torch.ones(3) * nn.Parameter(torch.ones(()))
    with pytest.warns(UserWarning, match=r"1 BatchNorm2d whose weight .* \(1\)"):
        convert_dual_norm(model)
    assert type(model[1]) is nn.BatchNorm2d


def test_tied_parameters_stay_tied() -> None:
    """FOUND W1: a neighbour, two norms of one weight get halves of one weight."""
    model: Any = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(3)))
    model[1].weight = model[2].weight = model[0].weight
    convert_dual_norm(model[:2])
    convert_dual_norm(model)  # the third finds the half of the first two
    assert len({id(norm.aux_bn.weight) for norm in model}) == 1
    assert model[0].aux_bn.weight is not model[0].weight
    assert len({id(norm.aux_bn.bias) for norm in model}) == 3


def test_gradients_are_divided_by_the_rows_of_their_half() -> None:
    """FOUND W1: a neighbour; ``equalize=True`` knows a parametrised weight as the main norm's."""
    plain = network().double()
    doubled = copy.deepcopy(plain)
    parametrize.register_parametrization(doubled[1], "weight", Doubled())
    x, y = images().double(), torch.randint(0, 5, (16,))
    for model in (plain, doubled):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        generator = torch.Generator().manual_seed(1)
        create_method("entprop", model, optimizer, equalize=True, generator=generator).backward(
            x, y
        )
    gradient = doubled[1].parametrizations.weight.original.grad
    torch.testing.assert_close(gradient, 2 * plain[1].weight.grad, rtol=1e-12, atol=1e-12)

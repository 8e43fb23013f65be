"""Routes through `torch.utils.checkpoint`: its second forward runs after the route has ended."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from entprop_fast import DualBatchNorm2d, DualLayerNorm, route
from entprop_fast.layers.routing import Target
from tests.layers import oracle


def network() -> nn.Sequential:
    """Make a network that ends in a norm: the last thing a checkpoint computes again."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), DualBatchNorm2d(4), nn.ReLU(), DualLayerNorm(5), DualBatchNorm2d(4)
    ).double()
    oracle.randomize(model)
    return model


def pair() -> tuple[nn.Sequential, nn.Sequential]:
    model = network()
    return model, copy.deepcopy(model)


def images() -> Tensor:
    return torch.randn(6, 3, 5, 5, dtype=torch.float64)


def loss(y: Tensor) -> Tensor:
    return y.pow(3).mul(torch.arange(y.shape[-1])).sum()


def run(model: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = checkpoint(model, x, use_reentrant=False)
    return y


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in model.parameters()]


def assert_same(model: nn.Module, expected: nn.Module) -> None:
    """Gradients and running statistics."""
    for found, gradient in zip(gradients(model), gradients(expected), strict=True):
        assert (found is None) == (gradient is None)
        assert found is None or gradient is None or torch.equal(found, gradient)
    assert not oracle.moved(model, oracle.snapshot(expected))


def close(model: nn.Module, expected: nn.Module) -> None:
    for found, gradient in zip(gradients(model), gradients(expected), strict=True):
        assert (found is None) == (gradient is None)
        if found is not None:
            torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("target", ["main", "aux", 2, 0, 6])
@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward after"])
@pytest.mark.parametrize("affine", [True, False])
def test_equal_to_the_run_without_checkpoints(target: Target, inside: bool, affine: bool) -> None:
    """Also where the first norm needs no gradient, and only what follows is computed again."""
    (model, expected), x = pair(), images()
    if not affine:
        for one in (model, expected):
            one[0], one[1] = DualBatchNorm2d(3, affine=False).double(), one[0]
        expected.load_state_dict(model.state_dict())
    with route(expected, target):
        loss(expected(x)).backward()
    with route(model, target):
        result = loss(run(model, x))
        if inside:
            result.backward()
    if not inside:
        result.backward()
    assert_same(model, expected)


def test_a_main_pass_then_an_auxiliary_one() -> None:
    """Backward after each forward; a loss that is kept does not keep its route."""
    (model, expected), x = pair(), images()
    kept = []
    for target in ("main", "aux", 3):
        with route(model, target), route(expected, target):
            kept.append(loss(run(model, x)))
            reference = loss(expected(x))
        kept[-1].backward()
        reference.backward()
    assert_same(model, expected)


def test_several_forwards_on_one_route_before_backward() -> None:
    (model, expected), x = pair(), images()
    with route(model, "aux"), route(expected, "aux"):
        result = loss(run(model, x)) + loss(run(model, x + 1))
        reference = loss(expected(x)) + loss(expected(x + 1))
    result.backward()
    reference.backward()
    close(model, expected)


@pytest.mark.parametrize("first", ["main", None], ids=["main", "no route"])
def test_two_routes_pending_at_once_raise(first: Target | None) -> None:
    model, x = network(), images()
    if first is None:
        result = loss(run(model, x))
    else:
        with route(model, first):
            result = loss(run(model, x))
    with route(model, "aux"):
        result = result + loss(run(model, x))
    with pytest.raises(RuntimeError, match="2 routes are pending"):
        result.backward()


def test_a_dropped_forward_is_not_pending() -> None:
    model, x = network(), images()
    with route(model, "main"):
        run(model, x)
    with route(model, "aux"):
        result = loss(run(model, x))
    result.backward()
    assert model[1].weight.grad is None


def test_the_reentrant_kind_raises() -> None:
    model, x = network(), images().requires_grad_()
    with route(model, "aux"):
        y = checkpoint(model, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        y.sum().backward()


def test_a_graph_that_is_kept_computes_again_along_its_route() -> None:
    model, x = network(), images()
    with route(model, "aux"):
        result = loss(run(model, x))
    result.backward(retain_graph=True)
    once = [None if g is None else 2 * g for g in gradients(model)]
    result.backward()
    for found, expected in zip(gradients(model), once, strict=True):
        assert found is expected is None or torch.equal(found, expected)  # type: ignore[arg-type]


def test_double_backward() -> None:
    model, expected = pair()
    x = images().requires_grad_()
    for twin, forward in ((model, run), (expected, lambda model, x: model(x))):
        with route(twin, 2):
            y = forward(twin, x)
        (gradient,) = torch.autograd.grad(loss(y), x, create_graph=True)
        gradient.square().sum().backward()
    close(model, expected)


def test_a_plain_batch_norm_is_refused_where_it_would_be_computed_wrongly() -> None:
    model = nn.Sequential(
        DualBatchNorm2d(3), nn.Flatten(2), nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4)
    ).double()
    expected, x = copy.deepcopy(model), images()
    with route(model, "aux"), route(expected, "aux"):
        loss(run(model, x)).backward()
        loss(expected(x)).backward()
    assert_same(model, expected)
    with pytest.raises(RuntimeError, match=r"BatchNorm1d .* run backward inside it"):
        with route(model, "aux"):
            result = loss(run(model, x))
    assert result.isfinite()
    with route(model, "aux"), torch.autograd.graph.save_on_cpu():
        later = loss(model(x))
    later.backward()  # other saved-tensor hooks compute nothing again


def test_without_any_route_it_does_what_torch_does() -> None:
    """Reentrant or not, and moving the statistics twice, as `nn.BatchNorm2d` does."""
    for reentrant in (True, False):
        plain, dual = nn.BatchNorm2d(3).double(), DualBatchNorm2d(3).double()
        x = images().requires_grad_()
        for norm in (plain, dual):
            model = nn.Sequential(norm, nn.Softmax(1))
            loss(checkpoint(model, x, use_reentrant=reentrant)).backward()
        assert torch.equal(dual.weight.grad, plain.weight.grad)  # type: ignore[arg-type]
        for found, buffer in zip(itertools.islice(dual.buffers(), 3), plain.buffers(), strict=True):
            assert torch.equal(found, buffer)


def test_under_hooks_of_others_that_are_no_functions() -> None:
    """Hooks may be what C defines, which knows no module: `torch.Tensor.cpu`, say."""
    norm = DualBatchNorm2d(3)
    with torch.autograd.graph.saved_tensors_hooks(Tensor.cpu, Tensor.cpu):
        norm(torch.rand(4, 3, 2, 2)).sum().backward()
    assert norm.weight.grad is not None

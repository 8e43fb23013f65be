"""Without a route `DualBatchNorm2d` cannot be told from `nn.BatchNorm2d`."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap

from entprop_fast import DualBatchNorm2d, route
from entprop_fast.layers.routing import Target
from tests.layers.oracle import randomize
from tests.ops.checks import LAYOUTS

C = 5
HAS_BIAS = "bias" in inspect.signature(nn.BatchNorm2d).parameters  # from torch 2.13
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "eps and momentum": {"eps": 0.1, "momentum": 0.7},
    "cumulative": {"momentum": None},
    "no affine": {"affine": False},
    "no running statistics": {"track_running_stats": False},
    "nothing": {"affine": False, "track_running_stats": False},
    **({"no bias": {"bias": False}} if HAS_BIAS else {}),
}


def both(
    dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[DualBatchNorm2d, nn.BatchNorm2d]:
    """Return a dual and a plain batch norm with equal, unusual parameters and buffers."""
    plain = nn.BatchNorm2d(C, **options)
    randomize(plain)
    dual = DualBatchNorm2d(C, **options)
    dual.load_state_dict(plain.state_dict())
    return dual.to(dtype), plain.to(dtype)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, C, 3, 4, generator=generator).mul(2).add(1).to(dtype)


def training_step(norm: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Everything a forward and a backward leave behind, by name; the auxiliary half excepted."""
    x = x.detach().requires_grad_()
    y = norm(x)
    y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape).to(y))
    assert x.grad is not None
    found = {"y": y.detach(), "x.grad": x.grad}
    for name, parameter in norm.named_parameters(recurse=False):
        assert parameter.grad is not None
        found[f"{name}.grad"] = parameter.grad
    return found | dict(norm.named_buffers(recurse=False))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=0, equal_nan=True, check_stride=True, msg=name
        )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_values_gradients_and_statistics_are_the_same_bits(
    options: dict[str, Any], training: bool
) -> None:
    dual, plain = both(**options)
    dual.train(training), plain.train(training)
    assert list(dual.state_dict()) == [p + k for p in ("", "aux_bn.") for k in plain.state_dict()]
    for rows in (6, 6, 0):  # each reads what the last left in the buffers
        x = images()[:rows]
        assert_same(training_step(dual, x), training_step(plain, x))
    assert torch.equal(dual(input=images()), plain(input=images()))  # FOUND C15: torch's name
    assert all(p.grad is None for p in dual.aux_bn.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_dtypes_and_layouts(
    dtype: torch.dtype, layout: Callable[[Tensor], Tensor], training: bool
) -> None:
    """With parameters of the dtype; with float32 ones, and under autocast."""
    x = layout(images(dtype))
    for own, autocast in ((dtype, False), (torch.float32, False), (torch.float32, True)):
        if dtype == torch.float64 != own:
            continue
        dual, plain = both(own)
        dual.train(training), plain.train(training)
        given = x.float() if autocast else x
        with torch.autocast("cpu", dtype, enabled=autocast):
            assert_same(training_step(dual, given), training_step(plain, given))


def test_double_backward() -> None:
    def penalty(norm: nn.Module) -> tuple[Tensor, ...]:
        x = images().requires_grad_()
        (gradient,) = torch.autograd.grad(norm(x).pow(3).sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), (x, *norm.parameters(recurse=False)))

    for found, expected in zip(*map(penalty, both()), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("shape", [(), (C,), (4, C), (4, C, 3), (4, C, 3, 3, 3), (1, C, 1, 1)])
def test_errors(shape: tuple[int, ...]) -> None:
    messages = []
    for norm in both():
        with pytest.raises(ValueError) as raised:
            norm(torch.zeros(shape))
        messages.append(str(raised.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("eps", [0.0, -1e-3, -float("inf"), float("nan"), 1])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_eps_is_refused_where_torch_refuses_it(eps: float, training: bool) -> None:
    """FOUND C15: torch 2.13 takes 0 in eval mode alone, 2.11 nowhere, and neither what is below."""
    found = []
    for norm in both(eps=eps):
        try:
            found.append(norm.train(training)(images()))
        except ValueError as error:
            found.append(error)
    if isinstance(found[1], ValueError):
        assert isinstance(found[0], ValueError) and re.search(rf"eps.*{eps}", str(found[0]))
    elif eps <= 0 and training:
        pytest.skip("this version of torch takes it")
    else:
        torch.testing.assert_close(*found, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("target", ["main", "aux", 3])
def test_eps_of_each_half_is_checked(target: Target) -> None:
    """FOUND C15: on every route, with the kernels (tests/ops) as without."""
    norm = DualBatchNorm2d(C)
    (norm if target == "main" else norm.aux_bn).eps = 0.0
    with route(norm, target), pytest.raises(ValueError, match="eps=0"):
        norm(images())
    with route(norm, "aux" if target == "main" else "main"):
        assert norm(images()).isfinite().all()


def test_constructor_takes_the_same_arguments_in_the_same_order() -> None:
    arguments = (C, 0.01, 0.2, True, True, "meta", torch.float64)
    dual, plain = DualBatchNorm2d(*arguments), nn.BatchNorm2d(*arguments)
    for norm in (dual, dual.aux_bn):
        assert norm.extra_repr() == plain.extra_repr()
        assert norm.weight.device.type == "meta" and norm.weight.dtype == torch.float64
    with pytest.raises(TypeError, match="no_such_option"):
        DualBatchNorm2d(C, no_such_option=1)


def test_func_transforms() -> None:
    def per_sample_gradients(norm: nn.Module) -> Tensor:
        parameters = {name: p.detach() for name, p in norm.named_parameters(recurse=False)}

        def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            y: Tensor = functional_call(norm, parameters, (x[None],))
            return y.pow(3).sum()

        gradients: Tensor = vmap(grad(loss), (None, 0))(parameters, images())["weight"]
        return gradients

    for tracking in (True, False):
        dual, plain = both(track_running_stats=tracking)
        dual.train(not tracking), plain.train(not tracking)
        assert torch.equal(per_sample_gradients(dual), per_sample_gradients(plain))


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_forward_mode(training: bool) -> None:
    found = []
    for norm in both():
        norm.train(training)
        with forward_ad.dual_level():
            y = norm(forward_ad.make_dual(images(), images().flip(0)))
            found.append(forward_ad.unpack_dual(y).tangent)
    assert torch.equal(found[0], found[1])


def test_cumulative_average_reads_its_counter_on_the_device() -> None:
    x = torch.empty(4, C, 3, 3, device="meta")
    norm = DualBatchNorm2d(C, momentum=None, device="meta")
    # A meta tensor has no value: whoever asks for one on the host fails.
    assert norm(x).shape == x.shape
    assert norm.forward_aux(x).shape == x.shape

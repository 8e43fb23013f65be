"""The same layers on the kernels: as close to float64 as torch's own norms, along every route."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast import DualBatchNorm2d, build_info, convert_dual_norm, route
from entprop_fast.models.blocks import norm_relu
from entprop_fast.ops import backend
from tests.ops.checks import assert_no_worse

ROUTES = ["main", "aux", 4]
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "cumulative": {"momentum": None},
    "no affine": {"affine": False},
    "no running statistics": {"track_running_stats": False},
}


@pytest.fixture(autouse=True)
def kernels(bits_of_torch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    if "cpu" not in build_info().backends:
        pytest.skip("the CPU kernels are not built (no C++ compiler, or ENTPROP_BUILD=off)")
    monkeypatch.setattr(backend, "KERNEL_DEVICES", {"cpu"})


def layer(dtype: torch.dtype, **settings: Any) -> DualBatchNorm2d:
    torch.manual_seed(0)
    norm = DualBatchNorm2d(5, **settings)
    for parameter in norm.parameters():
        nn.init.normal_(parameter, 1.0, 0.2)
    return norm.to(dtype)


def outcome(
    norm: DualBatchNorm2d, x: Tensor, residual: Tensor, target: Any, grad: Tensor
) -> dict[str, Tensor]:
    """Everything that a training step sees of the layer."""
    x, residual = (t.detach().clone().requires_grad_() for t in (x, residual))
    with route(norm, target):
        y = norm_relu(norm, x, residual)
    y.backward(grad)
    named = {"y": y, "dx": x.grad, "dresidual": residual.grad}
    named |= {name: parameter.grad for name, parameter in norm.named_parameters()}
    named |= dict(norm.named_buffers())
    return {name: t.detach() for name, t in named.items() if t is not None}


def images(dtype: torch.dtype, memory_format: torch.memory_format) -> tuple[Tensor, ...]:
    """Input, residual and output gradient; the same values, rounded to `dtype`."""
    generator = torch.Generator().manual_seed(1)
    tensors = (torch.randn(7, 5, 6, 3, generator=generator).bfloat16() for _ in range(3))
    x, residual, grad = (t.to(dtype, memory_format=memory_format) for t in tensors)
    return 3 + x, residual, grad


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("target", ROUTES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_as_close_to_float64_as_torch(
    settings: dict[str, Any],
    target: Any,
    memory_format: torch.memory_format,
    training: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(dtype: torch.dtype) -> dict[str, Tensor]:
        x, residual, grad = images(dtype, memory_format)
        return outcome(layer(dtype, **settings).train(training), x, residual, target, grad)

    ours = run(torch.float32)
    monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
    torchs, truth = run(torch.float32), run(torch.float64)
    assert ours.keys() == torchs.keys() == truth.keys()
    for name, expected in truth.items():
        if not expected.is_floating_point():
            assert torch.equal(ours[name], expected), name
            continue
        # Gradients of the affine parameters are sums of terms of up to 10 (4 sigma times 2.5).
        assert_no_worse(ours[name], torchs[name], expected, addend=10.0)


def transposed(x: Tensor) -> Tensor:
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def channels_last_3d(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


OTHERS: dict[str, tuple[Any, tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "1d": (nn.BatchNorm1d, (7, 5), Tensor.contiguous),
    "1d, tokens": (nn.BatchNorm1d, (7, 5, 18), Tensor.contiguous),
    "1d, channels innermost": (nn.BatchNorm1d, (7, 5, 18), transposed),
    "3d": (nn.BatchNorm3d, (7, 5, 2, 3, 4), Tensor.contiguous),
    "3d, channels innermost": (nn.BatchNorm3d, (7, 5, 2, 3, 4), channels_last_3d),
    "3d, strided": (nn.BatchNorm3d, (7, 5, 2, 3, 4), lambda x: torch.stack((x, x), -1)[..., 0]),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("target", ROUTES)
@pytest.mark.parametrize(("plain", "shape", "lay"), OTHERS.values(), ids=OTHERS)
def test_one_and_three_dimensions(
    plain: Any,
    shape: tuple[int, ...],
    lay: Callable[[Tensor], Tensor],
    target: Any,
    training: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the same kernels, with the layout kept and gradients of the second order."""
    torch.manual_seed(0)
    given, grad = torch.randn(2, *shape)
    norm = convert_dual_norm(plain(5)).train(training)
    for tensor in norm.parameters():
        nn.init.normal_(tensor, 1.0, 0.2)

    def run(dtype: torch.dtype) -> dict[str, Tensor]:
        twin, x = copy.deepcopy(norm).to(dtype), lay(3 + given.to(dtype)).requires_grad_()
        with route(twin, target):
            y = twin(x)
        ours = "DualBatchNorm" in str(getattr(y.grad_fn, "next_functions", "")) + str(y.grad_fn)
        assert ours == ("cpu" in backend.KERNEL_DEVICES and target != "main")
        if ours and (x.is_contiguous() or lay in (transposed, channels_last_3d)):
            assert y.stride() == x.stride()
        (dx,) = torch.autograd.grad(y, x, lay(grad.to(dtype)), create_graph=True)
        dx.square().sum().backward()
        named = {"y": y, "dx": dx, "second": x.grad, **dict(twin.named_buffers())}
        return {name: t.detach() for name, t in named.items() if t is not None}

    ours = run(torch.float32)
    monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
    torchs, truth = run(torch.float32), run(torch.float64)
    for name, expected in truth.items():
        if expected.is_floating_point():
            assert_no_worse(ours[name], torchs[name], expected, addend=10.0)
        else:
            assert torch.equal(ours[name], expected), name


def test_a_hook_sees_the_norm_alone() -> None:
    norm, seen = layer(torch.float32), []
    norm.register_forward_hook(lambda _, __, y: seen.append(y))
    x, residual, _ = images(torch.float32, torch.contiguous_format)
    y = norm_relu(norm, x, residual)
    assert torch.equal(y, F.relu(seen[0] + residual))
    assert seen[0].amin() < 0


def test_a_full_backward_hook_sees_the_gradient_before_sum_and_relu() -> None:
    """Its output is a view that autograd lets nobody write to."""
    norm, seen = layer(torch.float32), []

    def keep(_: object, __: object, grads: Any) -> None:
        seen.append(grads[0])

    norm.register_full_backward_hook(keep)
    x, residual, grad = images(torch.float32, torch.contiguous_format)
    y = norm_relu(norm, x.requires_grad_(), residual)
    y.backward(grad)
    assert torch.equal(seen[0], grad * (y > 0))


def test_what_a_hook_of_the_auxiliary_half_kept_stays() -> None:
    norm, seen = layer(torch.float32), []
    norm.aux_bn.register_forward_hook(lambda _, __, y: seen.append(y))
    x, residual, _ = images(torch.float32, torch.contiguous_format)
    with route(norm, "aux"):
        y = norm(x, residual, relu=True)
    assert torch.equal(y, F.relu(seen[0] + residual))
    with route(norm, 4):
        norm(x)
    assert len(seen) == 2


@pytest.mark.parametrize(("rows", "by_op"), [(6, False), (2**14, True)], ids=["tiny", "large"])
def test_what_is_tiny_and_all_main_is_torch_s(rows: int, by_op: bool) -> None:
    """A call of the op costs the host more than it saves; never so for a compiler."""
    norm, x = layer(torch.float32), torch.randn(rows, 5, 2, 1)
    with route(norm, "aux"):
        norm(x)
    for target in ("main", rows):
        with route(norm, target):
            found = "DualBatchNorm" in type(norm(x).grad_fn).__name__
        assert found == (by_op or target == rows)
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.append(str(graph.graph))
        return graph

    torch.compile(norm, backend=backend, fullgraph=True)(x)
    assert "autograd_function_apply" in seen[0]


def test_a_plain_norm_is_fused_too() -> None:
    x, residual, _ = images(torch.float32, torch.channels_last)
    torch.manual_seed(0)
    ours, torchs = nn.BatchNorm2d(5), nn.BatchNorm2d(5)
    found, expected = norm_relu(ours, x, residual), F.relu(torchs(x) + residual)
    torch.testing.assert_close(found, expected)
    for name, buffer in torchs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer)

"""conv3x3: values and gradients against float64, odd sizes, what goes to PyTorch's own."""

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entprop_fast.models.blocks import conv
from entprop_fast.ops import conv3x3, conv3x3_pays
from entprop_fast.ops.conv3x3 import BACKWARD, OP
from tests.ops.checks import Watching, assert_no_worse
from tests.ops.conftest import needs_extension

module = sys.modules["entprop_fast.ops.conv3x3"]
# [N, in, H, W], out: tiles cut off at the edges, one pixel, a block of tiles that is not full, two
# blocks, more blocks than are summed in float, columns of one vector and of three.
SHAPES = (
    ((2, 16, 5, 7), 32),
    ((1, 32, 1, 1), 16),
    ((3, 48, 2, 3), 16),
    ((2, 16, 8, 8), 48),
    ((5, 32, 9, 6), 32),
    ((20, 16, 16, 16), 16),
)


def tensors(shape: tuple[int, ...], out: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Activations as after a ReLU, weights and an incoming gradient, all channels_last."""
    torch.manual_seed(sum(shape))
    x = torch.randn(shape).relu()
    weight = torch.randn(out, shape[1], 3, 3) / (3 * shape[1] ** 0.5)
    grad = torch.randn(shape[0], out, *shape[2:])
    x, weight, grad = (
        t.to(dtype).contiguous(memory_format=torch.channels_last) for t in (x, weight, grad)
    )
    return x, weight, grad


def gradients(
    function: object, x: Tensor, weight: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = function(x, weight)  # type: ignore[operator]
    return y.detach(), *torch.autograd.grad(y, (x, weight), grad)


def plain(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, padding=1)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("shape", "out"), SHAPES, ids=str)
def test_values(backend: str, shape: tuple[int, ...], out: int, threads: int) -> None:
    x, weight, grad = tensors(shape, out, torch.float32)
    truth = gradients(plain, x.double(), weight.double(), grad.double())
    theirs = gradients(plain, x, weight, grad)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        ours = gradients(conv3x3, x, weight, grad)
    finally:
        torch.set_num_threads(before)
    # The largest sum of the absolute terms on the way, of which rounding is a share.
    addends = gradients(plain, x.double().abs(), weight.double().abs(), grad.double().abs())
    for result, same, true, terms in zip(ours, theirs, truth, addends, strict=True):
        assert_no_worse(result, same, true, addend=terms.max().item())
    assert ours[0].is_contiguous(memory_format=torch.channels_last)


@needs_extension
def test_kernels_are_what_runs() -> None:
    """Bits differ from PyTorch's, whose sums are others; else the tests above test it alone."""
    x, weight, grad = tensors((5, 32, 9, 6), 32, torch.float32)
    for ours, theirs in zip(
        gradients(conv3x3, x, weight, grad), gradients(plain, x, weight, grad), strict=True
    ):
        assert not torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_weights_and_gradients_in_any_layout(backend: str, layout: torch.memory_format) -> None:
    x, weight, grad = tensors((5, 32, 9, 6), 16, torch.float32)
    expected = gradients(conv3x3, x, weight, grad)
    other = (weight.contiguous(memory_format=layout), grad.contiguous(memory_format=layout))
    for result, wanted in zip(gradients(conv3x3, x, *other), expected, strict=True):
        torch.testing.assert_close(result, wanted)
    expanded = grad[:, :1, :1, :1].expand(grad.shape)
    torch.testing.assert_close(
        gradients(conv3x3, x, weight, expanded)[1], gradients(plain, x, weight, expanded)[1]
    )


@pytest.mark.parametrize(
    ("shape", "out", "dtype"),
    [
        ((3, 5, 6, 6), 16, torch.float32),
        ((3, 16, 6, 6), 7, torch.float32),
        ((3, 16, 6, 6), 16, torch.float64),
        ((3, 16, 6, 6), 16, torch.bfloat16),
        ((0, 16, 6, 6), 16, torch.float32),
    ],
    ids=str,
)
def test_what_no_kernel_covers_is_pytorch(
    backend: str, shape: tuple[int, ...], out: int, dtype: torch.dtype
) -> None:
    x, weight, grad = tensors(shape, out, dtype)
    for result, wanted in zip(
        gradients(conv3x3, x, weight, grad), gradients(plain, x, weight, grad), strict=True
    ):
        assert torch.equal(result, wanted)


def test_contiguous_images_are_pytorchs(backend: str) -> None:
    x, weight, _ = tensors((3, 16, 6, 6), 16, torch.float32)
    assert torch.equal(conv3x3(x.contiguous(), weight), plain(x.contiguous(), weight))


@needs_extension
def test_only_what_is_asked_for_is_computed() -> None:
    x, weight, grad = tensors((5, 32, 9, 6), 16, torch.float32)
    dx, dweight = BACKWARD(grad, x, weight, True, False)
    assert (dx.shape, dweight.numel()) == (x.shape, 0)
    dx, dweight = BACKWARD(grad, x, weight, False, True)
    assert (dx.numel(), dweight.shape) == (0, weight.shape)


@needs_extension
@pytest.mark.parametrize("leaf", [True, False])
def test_the_weight_gradient_is_left_out_where_only_the_images_is_asked_for(
    leaf: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, grad = tensors((5, 32, 9, 6), 16, torch.float32)
    x, weight = x.requires_grad_(), weight.requires_grad_()
    wanted: list[tuple[bool, bool]] = []

    def backward(*arguments: Any) -> tuple[Tensor, Tensor]:
        wanted.append(arguments[3:])
        return BACKWARD(*arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr(module, "BACKWARD", backward)
    used = weight if leaf else weight * 1
    y = conv3x3(x, used)
    (dx,) = torch.autograd.grad(y, x, grad, retain_graph=True)
    (dweight,) = torch.autograd.grad(y, weight, grad, retain_graph=True)
    both = torch.autograd.grad(y, (x, weight), grad, retain_graph=True)
    y.backward(grad, inputs=[x], retain_graph=True)
    y.backward(grad, inputs=[weight], retain_graph=True)
    assert x.grad is not None and weight.grad is not None
    assert [want_weight for _, want_weight in wanted] == [False, True, True, False, True]
    for found in (dx, both[0], x.grad):
        assert torch.equal(found, BACKWARD(grad, x, used, True, False)[0])
    for found in (dweight, both[1], weight.grad):
        assert torch.equal(found, BACKWARD(grad, x, used, False, True)[1])
    y.backward(grad)
    assert wanted[-1] == (True, True)


def test_second_derivative(backend: str) -> None:
    x, weight, _ = tensors((2, 16, 3, 4), 16, torch.float64)
    x, weight = x[:, :, :2, :2].requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradgradcheck(
        conv3x3, (x[:1].contiguous(memory_format=torch.channels_last), weight[:2]), atol=1e-8
    )


@pytest.mark.parametrize("op", [OP, BACKWARD], ids=["forward", "backward"])
def test_opcheck(op: torch._ops.OpOverload) -> None:
    x, weight, grad = tensors((2, 16, 3, 4), 16, torch.float32)
    arguments = (x, weight) if op is OP else (grad, x, weight, True, True)
    torch.library.opcheck(op, arguments)


@needs_extension
def test_where_it_pays() -> None:
    x, weight, _ = tensors((16, 32, 8, 8), 32, torch.float32)
    assert conv3x3_pays(x, weight)
    assert not conv3x3_pays(x.contiguous(), weight)
    assert not conv3x3_pays(x.double(), weight.double())
    assert not conv3x3_pays(x[:5], weight)  # 80 tiles for 32 channels
    assert not conv3x3_pays(x[:, :24].contiguous(memory_format=torch.channels_last), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not conv3x3_pays(x, weight)
    wide = torch.zeros(1024, 32, 3, 3)
    assert not conv3x3_pays(x, wide)


@needs_extension
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(32, 32, 3, padding=1, bias=False),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.Conv2d(32, 32, 3, padding=1, bias=False, stride=2),
        nn.Conv2d(32, 32, 3, padding=1, bias=False, groups=2),
        nn.Conv2d(32, 32, 3, padding=2, dilation=2, bias=False),
        nn.Conv2d(32, 32, 3, padding=1, bias=False, padding_mode="circular"),
        nn.Conv2d(32, 32, 1, bias=False),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(32, 32, 3, padding=1, bias=False)),
    ],
    ids=str,
)
def test_a_layer_goes_to_the_op_only_if_it_is_plain(layer: nn.Conv2d) -> None:
    x = tensors((16, 32, 8, 8), 32, torch.float32)[0]
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with Watching() as ran:
        y = conv(layer, x)
    is_plain = type(layer) is nn.Conv2d and layer.extra_repr().endswith(
        "(1, 1), padding=(1, 1), bias=False"
    )
    assert (OP in ran.seen) == is_plain
    torch.testing.assert_close(y, layer(x))


@needs_extension
def test_a_hook_sees_the_layer_run() -> None:
    x = tensors((16, 32, 8, 8), 32, torch.float32)[0]
    layer = nn.Conv2d(32, 32, 3, padding=1, bias=False)
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda module, inputs, y: seen.append(y))
    assert conv(layer, x) is seen[0]

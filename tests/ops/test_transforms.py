"""The ops under opcheck, gradcheck, compile, torch.func, forward-mode AD and double backward."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from entprop_fast.ops import (
    Half,
    dual_batch_norm,
    entropy_topk,
    gather_perturb,
    loss_and_entropy,
    perturb_,
)
from entprop_fast.ops.dual_batch_norm import BACKWARD, OP
from entprop_fast.ops.dual_batch_norm_schema import from_flat
from entprop_fast.ops.loss_and_entropy import OP as LOSS
from entprop_fast.ops.perturb import GATHER, GATHER_OUT, PERTURB
from entprop_fast.ops.select_topk import OP as TOPK
from tests.ops.checks import LAYOUTS


def norm_arguments(
    x: Tensor,
    *,
    num_main: int = 2,
    training: bool = True,
    relu: bool = True,
    residual: bool = False,
) -> tuple[Any, ...]:
    channels = x.shape[1]
    generator = torch.Generator(x.device).manual_seed(1)
    draw = torch.rand(8, channels, generator=generator, dtype=torch.float64).to(x.dtype) + 0.5
    added = torch.randn(x.shape, generator=generator).to(x) if residual else None
    added = None if added is None else torch.empty_like(x).copy_(added)
    return (x, added, *draw, num_main, training, training, 0.1, 0.2, 1e-5, 1e-3, relu)


def public_norm(*flat: Any) -> Tensor:
    """Return the public function with the op's arguments."""
    x, residual, main, aux, num_main, relu, _ = from_flat(*flat)
    return dual_batch_norm(x, main, aux, num_main, residual=residual, relu=relu)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("residual", [False, True])
def test_opcheck_dual_batch_norm(device: str, layout: str, residual: bool) -> None:
    x = LAYOUTS[layout](torch.randn(5, 9, 4, 3))
    arguments = norm_arguments(x, residual=residual)
    torch.library.opcheck(OP, arguments)
    _, mean, rstd, mask, _ = OP(*arguments)
    kept = arguments[1] if mask.numel() == 0 else None
    affine = (arguments[2], arguments[3], arguments[6], arguments[7])
    wanted = [True] * 4 if residual else [layout != "sliced", False, layout == "sliced", False]
    torch.library.opcheck(
        BACKWARD, (x, x, kept, *affine, mean, rstd, mask, 2, True, True, True, wanted)
    )


def test_opcheck_loss_and_selection(device: str) -> None:
    labels = torch.randint(7, (5,))
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.randn(5, 7).to(dtype)
        torch.library.opcheck(LOSS, (logits, labels, labels, torch.tensor(0.5), 0.1, "margin"))
    torch.library.opcheck(TOPK, (torch.randn(9), 4))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_opcheck_perturb(device: str, layout: str) -> None:
    x, grad = (LAYOUTS[layout](torch.randn(5, 3, 4, 6)) for _ in range(2))
    limits, index = tuple(torch.rand(4, 3)), torch.tensor([3, 1])
    torch.library.opcheck(GATHER, (x, grad, index, *limits))
    out = GATHER(x, grad, index, *limits)
    torch.library.opcheck(GATHER_OUT, (x, grad, index, *limits), {"out": out})
    torch.library.opcheck(PERTURB, (out, grad[:2].clone(), x, index, *limits))


def norm_of_float64(
    x: Tensor, *, residual: bool, training: bool, relu: bool
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Return a function that moves no running statistic, and its differentiable inputs."""
    arguments = norm_arguments(x, residual=residual, training=training, relu=relu)
    positions = [0, 2, 3, 6, 7, *([1] if residual else [])]

    def function(*inputs: Tensor) -> Tensor:
        called: list[Any] = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
        for position, value in zip(positions, inputs, strict=True):
            called[position] = value
        return public_norm(*called)

    return function, tuple(arguments[p].detach().clone().requires_grad_() for p in positions)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradients_and_second_gradients(
    backend: str, layout: str, relu: bool, residual: bool, training: bool
) -> None:
    torch.manual_seed(3)
    x = LAYOUTS[layout](torch.randn(4, 3, 2, 2, dtype=torch.float64))
    function, inputs = norm_of_float64(x, residual=residual, training=training, relu=relu)
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs, fast_mode=True)


def test_loss_gradients_and_second_gradients(backend: str) -> None:
    labels, partner = torch.tensor([0, 2, 1]), torch.tensor([0, 1, 3])
    lam = torch.tensor(0.3, dtype=torch.float64)

    def function(logits: Tensor) -> Tensor:
        return loss_and_entropy(logits, labels, partner, lam, 0.1).loss

    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(function, (logits,))
    assert gradgradcheck(function, (logits,))


def test_one_weight_in_both_groups(backend: str) -> None:
    """A parameter passed twice gets the sum of its two gradients, also the second time."""
    x, weight = torch.randn(4, 3, 2, 2, dtype=torch.float64), torch.rand(3, dtype=torch.float64)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return dual_batch_norm(x, Half(weight), Half(weight), 2)

    assert gradgradcheck(function, (x.requires_grad_(), weight.requires_grad_()))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("grad_layout", ["contiguous", "channels_last"])
def test_differentiable_gradient_of_one_row(backend: str, layout: str, grad_layout: str) -> None:
    """With a graph of its own it is the gradient without, in whichever layout it arrives."""
    x = LAYOUTS[layout](torch.randn(1, 5, 2, 3, dtype=torch.float64)).requires_grad_()
    grad = LAYOUTS[grad_layout](torch.randn(1, 5, 2, 3, dtype=torch.float64))
    y = dual_batch_norm(x, Half(torch.rand(5, dtype=torch.float64) + 0.5))
    (plain,) = torch.autograd.grad(y, x, grad, retain_graph=True)
    (differentiable,) = torch.autograd.grad(y, x, grad, create_graph=True)
    torch.testing.assert_close(differentiable, plain, rtol=1e-12, atol=1e-12)


def test_differentiable_gradient_of_the_residual_alone(backend: str) -> None:
    """As behind a frozen norm on frozen layers."""
    x, residual = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    residual.requires_grad_()
    y = dual_batch_norm(x, residual=residual, relu=True)
    (gradient,) = torch.autograd.grad(y.square().sum(), residual, create_graph=True)
    torch.testing.assert_close(gradient, 2 * y)
    (second,) = torch.autograd.grad(gradient.sum(), residual)
    torch.testing.assert_close(second, 2 * (y > 0).double())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compile_dual_batch_norm(backend: str, layout: str) -> None:
    x = LAYOUTS[layout](torch.randn(6, 8, 4, 4))
    arguments = norm_arguments(x, residual=True)
    results = []
    for transform in (lambda f: f, lambda f: torch.compile(f, fullgraph=True, backend="aot_eager")):
        called = [t.clone() if isinstance(t, Tensor) else t for t in arguments]
        leaves = [called[p].requires_grad_() for p in (0, 1, 2, 3, 6, 7)]
        y = transform(public_norm)(*called)
        grads = torch.autograd.grad(y.square().sum(), leaves)
        results.append((y, *grads, *called[4:6], *called[8:10]))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)
        assert compiled.stride() == eager.stride()


def test_compile_the_step_ops(backend: str) -> None:
    x, limits = torch.rand(6, 3, 4, 4), tuple(torch.rand(4, 3))
    labels = torch.randint(5, (6,))

    def step(logits: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        loss, entropy, score, index = entropy_topk(logits, labels, 2)
        x_adv = gather_perturb(x, x - 0.5, index, *limits)
        out = gather_perturb(x, x - 0.5, index, *limits, out=torch.empty_like(x_adv))
        return loss, entropy, score, index, perturb_(x_adv, out - 0.5, x, index, *limits)

    logits = torch.randn(6, 5, requires_grad=True)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(logits, x)
    for eager, result in zip(step(logits, x), compiled, strict=True):
        torch.testing.assert_close(result, eager)
    (grad,) = torch.autograd.grad(compiled[0].sum(), logits)
    torch.testing.assert_close(grad, torch.autograd.grad(step(logits, x)[0].sum(), logits)[0])


def test_forward_mode(backend: str) -> None:
    x, tangent = torch.randn(2, 4, 3, 3, 3, dtype=torch.float64)
    with forward_ad.dual_level():
        y = dual_batch_norm(forward_ad.make_dual(x, tangent), relu=True)
        expected = F.relu(F.batch_norm(forward_ad.make_dual(x, tangent), None, None, training=True))
        torch.testing.assert_close(
            forward_ad.unpack_dual(y).tangent, forward_ad.unpack_dual(expected).tangent
        )


def test_torch_func(backend: str) -> None:
    x = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 2])

    def loss(x: Tensor) -> Tensor:
        y = dual_batch_norm(x, num_main=2, relu=True)
        return loss_and_entropy(y.mean((2, 3)), labels).loss.sum()

    expected = x.clone().requires_grad_()
    loss(expected).backward()
    torch.testing.assert_close(torch.func.grad(loss)(x), expected.grad)
    torch.func.vmap(loss)(torch.stack([x, 2 * x]))


def test_reference_backend_is_batch_norm_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entprop_fast.ops.backend.KERNEL_DEVICES", set())
    x, weight, bias = torch.randn(8, 5, 4, 4), torch.rand(5), torch.rand(5)
    results = []
    for ours in (True, False):
        leaves = tuple(t.clone().requires_grad_() for t in (x, weight, bias))
        (image, scale, shift), running = leaves, (torch.zeros(5), torch.ones(5))
        if ours:
            y = dual_batch_norm(image, Half(scale, shift, *running))
        else:
            y = F.batch_norm(image, *running, scale, shift, training=True)
        results.append((y, *running, *torch.autograd.grad(y.square().sum(), leaves)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

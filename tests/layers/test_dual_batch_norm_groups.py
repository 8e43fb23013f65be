"""Routed by rows, each half of a `DualBatchNorm2d` normalises its group as if it were alone."""

import copy
from contextlib import nullcontext

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

from entprop_fast import DualBatchNorm2d, route
from entprop_fast.layers.routing import Target
from entprop_fast.layers.torch_quirks import cumulative_batch_norm
from tests.layers import oracle

C = 3


def dual(dtype: torch.dtype = torch.float64, **options: bool | float | None) -> DualBatchNorm2d:
    norm = DualBatchNorm2d(C, **options)  # type: ignore[arg-type]
    oracle.randomize(norm)
    return norm.to(dtype)


def images(rows: int = 6, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(rows, C, 2, 3, dtype=torch.float64).mul(2).add(1).to(dtype)


def halves(norm: DualBatchNorm2d) -> tuple[nn.Module, nn.Module]:
    return norm, norm.aux_bn


def entries(norm: DualBatchNorm2d, half: str) -> set[str]:
    """Names of the parameters and buffers of one half."""
    return {name for name in norm.state_dict() if name.startswith("aux_bn.") == (half == "aux")}


@given(
    rows=st.integers(1, 7),
    channels=st.integers(1, 5),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    m=st.integers(0, 7),
    channels_last=st.booleans(),
)
def test_each_group_by_its_definition(
    rows: int, channels: int, size: tuple[int, int], m: int, channels_last: bool
) -> None:
    assume(m <= rows)
    assume(1 not in (m * size[0] * size[1], (rows - m) * size[0] * size[1]))
    norm = DualBatchNorm2d(channels, eps=0.01, momentum=0.3, dtype=torch.float64)
    oracle.randomize(norm)
    norm.aux_bn.eps, norm.aux_bn.momentum = 0.02, 0.4  # each half has its own
    before = oracle.snapshot(norm)
    x = torch.randn(rows, channels, *size, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    x.requires_grad_()
    upstream = torch.randn_like(x)

    with route(norm, m):
        y = norm(x)
    y.backward(upstream)

    truth_x = x.detach().clone().requires_grad_()
    groups = ((norm, truth_x[:m], "", 0.3), (norm.aux_bn, truth_x[m:], "aux_bn.", 0.4))
    outputs = []
    for half, group, prefix, momentum in groups:
        if not len(group):
            continue
        weight, bias = (before[f"{prefix}{k}"].requires_grad_() for k in ("weight", "bias"))
        truth = oracle.batch_norm(group, weight, bias, half.eps)
        outputs.append(truth.y)
        expected = torch.autograd.grad(
            truth.y, (weight, bias), upstream[:m] if half is norm else upstream[m:], True
        )
        assert half.weight.grad is not None and half.bias.grad is not None
        close(half.weight.grad, expected[0])
        close(half.bias.grad, expected[1])
        for name, value in (("running_mean", truth.mean), ("running_var", truth.variance)):
            old = before[f"{prefix}{name}"]
            close(getattr(half, name), (1 - momentum) * old + momentum * value)
        assert half.num_batches_tracked == before[f"{prefix}num_batches_tracked"] + 1
    close(y, torch.cat(outputs))
    (gradient,) = torch.autograd.grad(torch.cat(outputs), truth_x, upstream)
    assert x.grad is not None
    close(x.grad, gradient)


def close(found: Tensor, expected: Tensor) -> None:
    """SPEC: Exactness."""
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("target", "used", "rows"),
    [
        *(("main", "main", 6), (6, "main", 6), ("aux", "aux", 6), (0, "aux", 6)),
        *(("main", "main", 0), ("aux", "aux", 0)),
    ],
)
def test_a_group_without_rows_is_untouched(target: Target, used: str, rows: int) -> None:
    norm = dual()
    before = oracle.snapshot(norm)
    with route(norm, target):
        y = norm(images(rows))
    y.sum().backward()
    assert y.shape == (rows, C, 2, 3)
    statistics = {n for n, _ in norm.named_buffers()}
    moved, own = oracle.moved(norm, before), entries(norm, used) & statistics
    assert moved == own if rows else moved <= own
    with_gradient = {n for n, p in norm.named_parameters() if p.grad is not None}
    assert with_gradient == entries(norm, used) - statistics


def test_a_group_of_a_single_value_is_refused() -> None:
    norm = dual()
    for m in (1, 5):
        with pytest.raises(ValueError, match="more than 1 value per channel"), route(norm, m):
            norm(images()[:, :, :1, :1])


def test_freezing_the_auxiliary_half_alone() -> None:
    norm = dual()
    norm.aux_bn.eval()
    before, x = oracle.snapshot(norm), images()
    with route(norm, 4):
        y = norm(x)
    assert oracle.moved(norm, before) == {"running_mean", "running_var", "num_batches_tracked"}
    close(y[:4], oracle.batch_norm(x[:4], norm.weight, norm.bias, norm.eps).y)
    frozen = nn.BatchNorm2d(C, dtype=torch.float64)
    frozen.load_state_dict(norm.aux_bn.state_dict())
    assert torch.equal(y[4:], frozen.eval()(x[4:]))


def test_reset_parameters() -> None:
    norm = dual()
    norm.reset_parameters()
    for half in halves(norm):
        fresh = nn.BatchNorm2d(C, dtype=torch.float64)
        assert not oracle.moved(fresh, {k: half.state_dict()[k] for k in fresh.state_dict()})


def test_derivatives_against_finite_differences() -> None:
    norm = dual(momentum=0.0)
    x = images(5).requires_grad_()
    with route(norm, 2):
        assert torch.autograd.gradcheck(norm, x)
        assert torch.autograd.gradgradcheck(norm, x)
        step = torch.randn_like(x).detach()
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(norm(forward_ad.make_dual(x.detach(), step))).tangent
        h = 1e-6
        close_to = (norm(x + h * step) - norm(x - h * step)) / (2 * h)
    torch.testing.assert_close(tangent, close_to, rtol=1e-7, atol=1e-7)


def test_compile_and_export_along_a_route() -> None:
    norm = dual(torch.float32)
    x = images(dtype=torch.float32)
    targets: tuple[Target | None, ...] = (None, 2, "aux", "main")
    for target in targets:
        twin = copy.deepcopy(norm)
        compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
        with route(norm, target or "main"), route(twin, target) if target else nullcontext():
            assert torch.equal(compiled(x), norm(x))
        assert not oracle.moved(twin, oracle.snapshot(norm))
    norm.eval()
    with route(norm, 2):
        program, expected = torch.export.export(norm, (x,)), norm(x)
    assert torch.equal(program.module()(x), expected)


@pytest.mark.parametrize("affine", [True, False])
def test_cumulative_average_is_that_of_batch_norm(affine: bool) -> None:
    """Read on the device: what a GPU's layers run, the CPU's being torch's own."""
    plain = nn.BatchNorm2d(C, momentum=None, affine=affine, dtype=torch.float64)
    ours = nn.BatchNorm2d(C, momentum=None, affine=affine, dtype=torch.float64)
    for rows in (4, 2, 0, 7):
        x = images(rows)
        assert torch.equal(cumulative_batch_norm(ours, x), plain(x))
        for found, expected in zip(ours.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_each_half_counts_its_own_cumulative_average() -> None:
    norm = dual(momentum=None)
    norm.reset_running_stats()
    x = images()
    for m in (6, 6, 3):
        with route(norm, m):
            norm(x)
    assert norm.running_mean is not None
    close(norm.running_mean, (2 * x.mean((0, 2, 3)) + x[:3].mean((0, 2, 3))) / 3)
    close(norm.aux_bn.running_mean, x[3:].mean((0, 2, 3)))  # type: ignore[arg-type]

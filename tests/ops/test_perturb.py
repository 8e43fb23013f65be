"""gather_perturb and perturb_: bit for bit the plain expression, in every layout."""

from types import SimpleNamespace
from typing import TypeAlias, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from entprop_fast.ops import gather_perturb, perturb, perturb_
from tests.ops.checks import LAYOUTS, assert_no_worse

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SHAPES = ((5, 3, 7, 5), (4, 1, 1, 1), (3, 33, 2, 3), (6, 3, 32, 32), (2, 5, 9, 1))
FLOATS = st.floats(-2, 2, width=32) | st.sampled_from([0.0, -0.0, float("nan"), float("inf")])


Limits: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]


def bounds(channels: int, dtype: torch.dtype) -> Limits:
    """alpha, eps, lo, hi that differ from channel to channel."""
    ramp = 1 + torch.arange(channels) / channels
    return cast(Limits, tuple((base * ramp).to(dtype) for base in (0.03, 0.04, -0.9, 0.8)))


def expected_step(x0: Tensor, x_adv: Tensor, grad: Tensor, limits: Limits) -> Tensor:
    alpha, eps, lo, hi = (value[:, None, None] for value in limits)
    moved = torch.clamp(x_adv - x0 + alpha * grad.sign(), -eps, eps)
    return torch.clamp(x0 + moved, lo, hi)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values(
    ops: SimpleNamespace, dtype: torch.dtype, layout: str, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(sum(shape))
    x, grad = (LAYOUTS[layout](torch.randn(shape).to(dtype)) for _ in range(2))
    grad = grad * (torch.rand(shape) > 0.2)  # some signs are zero
    index = torch.tensor([shape[0] - 1, 0, 0])
    limits = bounds(shape[1], dtype)
    wide = cast(Limits, tuple(value.double() for value in limits))

    x_adv = ops.gather_perturb(x, grad, index, *limits)
    x0, g = x[index], grad[index]
    truth = expected_step(x0.double(), x0.double(), g.double(), wide)
    assert_no_worse(x_adv, expected_step(x0, x0, g, limits), truth)
    out = torch.empty_like(x_adv)
    ops.gather_perturb_out(x, grad, index, *limits, out=out)
    assert torch.equal(out, x_adv)

    truth = expected_step(x0.double(), x_adv.double(), g.double(), wide)
    same = expected_step(x0, x_adv, g, limits)
    ops.perturb_(x_adv, g, x, index, *limits)
    assert_no_worse(x_adv, same, truth)
    if dtype == torch.float32:
        assert torch.equal(x_adv, same)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=1, max_size=40),
    st.tuples(*[st.floats(0, 1, width=32)] * 4),
)
def test_any_values(
    ops: SimpleNamespace,
    values: list[tuple[float, float, float]],
    limits: tuple[float, float, float, float],
) -> None:
    x, grad, x_adv = (
        torch.tensor(column)[None, None, :, None] for column in zip(*values, strict=True)
    )
    tensors = cast(Limits, tuple(torch.tensor([value]) for value in limits))
    index = torch.zeros(1, dtype=torch.int64)
    first = expected_step(x, x, grad, tensors)
    # The expression x - x is NaN at infinity; the op starts from x itself.
    at_start = torch.where(x.isinf(), x.clamp(tensors[2], tensors[3]), first)
    result = ops.gather_perturb(x, grad, index, *tensors)
    torch.testing.assert_close(result, at_start, rtol=0, atol=0, equal_nan=True)
    onward = expected_step(x, x_adv, grad, tensors)
    ops.perturb_(x_adv, grad, x, index, *tensors)
    torch.testing.assert_close(x_adv, onward, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("row", [-6, 5, 2**20, -(2**62)])
def test_index_out_of_range(ops: SimpleNamespace, backend: str, row: int) -> None:
    """An IndexError, as `x[index]` raises it, before anything is written."""
    if backend == "cuda":
        pytest.skip("no error there: tests/gpu has what comes instead")
    for dtype in (torch.float32, torch.float16):  # the C++ kernels hand float16 on to PyTorch
        x, limits = torch.randn(5, 3, 4, 4).to(dtype), bounds(3, dtype)
        x_adv, index = x[:2].clone(), torch.tensor([0, row])
        message = f"index {row} is out of bounds"
        with pytest.raises(IndexError, match=message):
            ops.gather_perturb(x, x, index, *limits)
        with pytest.raises(IndexError, match=message):
            ops.perturb_(x_adv, x[:2].clone(), x, index, *limits)
        assert torch.equal(x_adv, x[:2])


def test_rows_outside_become_nan_where_indexing_would_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FOUND S3: plain PyTorch on CUDA, MPS and XPU, as the CUDA kernels; nothing waits."""
    monkeypatch.setattr(perturb, "RAISING", ())
    x, grad, limits = torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4), bounds(3, torch.float32)
    index, within = torch.tensor([5, -5, 2**40, -6]), torch.tensor([0])
    x_adv = perturb.gather_reference(x, grad, index, *limits)
    assert torch.equal(x_adv[1:2], perturb.gather_reference(x, grad, within, *limits))
    assert x_adv[[0, 2, 3]].isnan().all() and not x_adv[1].isnan().any()
    moved, one = x[:4].clone(), x[1:2].clone()
    perturb.perturb_reference(moved, grad[:4], x, index, *limits)
    perturb.perturb_reference(one, grad[1:2], x, within, *limits)
    assert torch.equal(moved[1:2], one) and moved[[0, 2, 3]].isnan().all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_negative_index_counts_from_the_end(ops: SimpleNamespace, layout: str) -> None:
    x, grad = (LAYOUTS[layout](torch.randn(5, 3, 4, 6)) for _ in range(2))
    index, limits = torch.tensor([-1, 2, -5]), bounds(3, torch.float32)
    x_adv = ops.gather_perturb(x, grad, index, *limits)
    assert torch.equal(x_adv, expected_step(x[index], x[index], grad[index], limits))
    moved = expected_step(x[index], x_adv, grad[index], limits)
    ops.perturb_(x_adv, grad[index], x, index, *limits)
    assert torch.equal(x_adv, moved)


def test_result_keeps_the_memory_format(ops: SimpleNamespace) -> None:
    limits, index = bounds(3, torch.float32), torch.tensor([1, 0])
    for layout in ("contiguous", "channels_last"):
        x = LAYOUTS[layout](torch.randn(4, 3, 5, 6))
        assert ops.gather_perturb(x, x, index, *limits).stride() == x[:2].stride()


def test_public_functions(backend: str) -> None:
    x, grad = torch.rand(6, 3, 5, 5), torch.randn(6, 3, 5, 5)
    index, limits = torch.tensor([4, 2]), bounds(3, torch.float32)
    out = torch.empty(2, 3, 5, 5)
    assert gather_perturb(x, grad, index, *limits, out=out) is out
    assert torch.equal(out, gather_perturb(x, grad, index, *limits))
    expected = expected_step(x[index], out, grad[index], limits)
    assert perturb_(out, grad[index], x, index, *limits) is out
    assert torch.equal(out, expected)

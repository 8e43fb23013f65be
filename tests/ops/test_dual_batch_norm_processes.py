"""moments, merge and dx: rows dealt to several processes give what one op gives on all of them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.norm_half import Half
from entprop_fast.ops.dual_batch_norm_dx import OP as DX
from entprop_fast.ops.dual_batch_norm_merge import OP as MERGE
from entprop_fast.ops.dual_batch_norm_merge import Running
from entprop_fast.ops.dual_batch_norm_moments import OP as MOMENTS
from entprop_fast.ops.dual_batch_norm_schema import flat
from tests.ops.checks import assert_no_worse
from tests.ops.test_dual_batch_norm import (
    DTYPES,
    EPS,
    MOMENTUM,
    Case,
    addends,
    make_case,
    torch_chain,
)

# Main and auxiliary rows of three processes: some have none of one half, one has none at all.
DEALT = {
    "all": [(2, 1), (1, 3), (3, 2)],
    "a half empty": [(4, 0), (0, 6), (2, 0)],
    "nothing": [(5, 2), (0, 0), (1, 4)],
    "main alone": [(4, 0), (8, 0), (0, 0)],
    "auxiliary alone": [(0, 7), (0, 5)],
}


def dealt(value: Tensor, rows: list[tuple[int, int]]) -> list[Tensor]:
    """Rows of each process, in the layout of `value`."""
    parts = value.split([main for main, _ in rows] + [aux for _, aux in rows])
    own = [torch.cat([parts[n], parts[len(rows) + n]]) for n in range(len(rows))]
    last = value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous()
    form = torch.channels_last if last else torch.contiguous_format
    return [part.contiguous(memory_format=form) for part in own]


def joined(parts: list[Tensor], rows: list[tuple[int, int]]) -> Tensor:
    """Undo `dealt`."""
    halves = [part.split(own) for part, own in zip(parts, map(list, rows), strict=True)]
    return torch.cat([half[which] for which in (0, 1) for half in halves])


def run(ops: SimpleNamespace, case: Case, rows: list[tuple[int, int]]) -> dict[str, Tensor]:
    """What the processes find, rows put together and sums added up."""
    images, grads = dealt(case.x, rows), dealt(case.grad, rows)
    residuals = [None] * len(rows) if case.residual is None else dealt(case.residual, rows)
    running = case.running_mean.clone(), case.running_var.clone()
    training = case.training
    gathered = torch.stack(
        [
            ops.dual_batch_norm_moments(x, own[0], *training)
            for x, own in zip(images, rows, strict=True)
        ]
    )
    halves = [
        Running(running[0][n], running[1][n], torch.tensor(4), MOMENTUM[n])
        if training[n]
        else Running()
        for n in (0, 1)
    ]
    moving = [*halves[0][:3], *halves[1][:3], halves[0].momentum, halves[1].momentum]
    mean, variance, count = ops.dual_batch_norm_merge(gathered, *moving)
    fixed = [
        Half(case.weight[n], case.bias[n], mean[n], variance[n], False, 0.0, EPS[n]) for n in (0, 1)
    ]
    affine = [t for n in (0, 1) for t in (case.weight[n], case.bias[n])]
    found: dict[str, list[Tensor]] = {name: [] for name in ("y", "dx", "dresidual")}
    kept, sums = [], torch.zeros(2, 2, mean.shape[1], dtype=mean.dtype)
    for x, grad, residual, own in zip(images, grads, residuals, rows, strict=True):
        y, *statistics, mask, _ = ops.dual_batch_norm(
            *flat(x, residual, fixed[0], fixed[1], own[0], case.relu)
        )
        given: list[Any] = [grad, x, None if mask.numel() else residual, *affine, *statistics, mask]
        settings = (own[0], False, False, case.relu)
        wanted = [False, residual is not None, True, True]
        _, dresidual, dweight, dbias = ops.dual_batch_norm_backward(*given, *settings, wanted)
        sums += torch.stack([dbias, dweight])
        kept.append((given, own[0]))
        found["y"].append(y)
        found["dresidual"].append(dresidual)
    for given, num_main in kept:
        found["dx"].append(
            ops.dual_batch_norm_dx(*given, sums, count, num_main, *training, case.relu)
        )
    results = {"running_mean": running[0], "running_var": running[1]}
    results |= {"dweight": sums[1], "dbias": sums[0]}
    if case.residual is None:
        del found["dresidual"]
    return results | {name: joined(parts, rows) for name, parts in found.items()}


def check(ops: SimpleNamespace, case: Case, rows: list[tuple[int, int]], mean: float = 0.0) -> None:
    """Assert that all errs no more than torch; where means are far from 0, by their rounding more.

    Processes exchange them in float32, as those of torch's SyncBatchNorm do, and compare them.
    """
    result, truth = run(ops, case, rows), torch_chain(case, torch.float64)
    chains = [torch_chain(case, case.x.dtype, batch_norm) for batch_norm in ops.batch_norms]
    scale = addends(case) | {"running_var": abs(mean) / 8}
    for name, expected in truth.items():
        errors = [(chain[name].double() - expected).abs().max().item() for chain in chains]
        same = chains[errors.index(max(errors))][name]
        assert_no_worse(result[name], same, expected, addend=scale.get(name, 0.0), name=name)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("kind", DEALT)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values(
    ops: SimpleNamespace,
    backend: str,
    dtype: torch.dtype,
    layout: str,
    kind: str,
    residual: bool,
) -> None:
    rows = DEALT[kind]
    # PyTorch rounds the norm before the sum, whose sign is then another one in places.
    relu = not (residual and backend == "reference" and dtype == torch.bfloat16)
    for shape in ((12, 7, 5, 3), (12, 33, 1, 1)):
        num_main = sum(main for main, _ in rows)
        case = make_case(shape, dtype, layout, num_main=num_main, relu=relu, residual=residual)
        check(ops, case, rows)


@pytest.mark.parametrize("mean", [1e3, -1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_far_from_zero(ops: SimpleNamespace, dtype: torch.dtype, mean: float) -> None:
    rows = DEALT["nothing"]
    case = make_case((12, 7, 5, 3), dtype, "channels_last", num_main=6, mean=mean, relu=False)
    check(ops, case, rows, mean)


@pytest.mark.parametrize("training", [(True, False), (False, True)], ids=str)
def test_a_half_that_stands_still(ops: SimpleNamespace, training: tuple[bool, bool]) -> None:
    x = torch.randn(4, 3, 2, 2) + 1
    found = ops.dual_batch_norm_moments(x, 1, *training)
    still = training.index(False)
    assert not found[still].any() and found[1 - still].all()
    case = make_case((12, 7, 5, 3), torch.float64, "contiguous", num_main=6)._replace(
        training=training
    )
    given = [case.grad, case.x, None, *[case.weight[n // 2] for n in range(4)]]
    statistics = (torch.zeros(2, 7).double(), torch.ones(2, 7).double(), torch.empty(0).byte())
    sums, count = torch.ones(2, 2, 7).double(), torch.full((2,), 9.0).double()
    dx = ops.dual_batch_norm_dx(*given, *statistics, sums, count, 6, *training, False)
    part = slice(6, None) if still else slice(0, 6)
    scale = case.weight[still].double()[:, None, None]
    torch.testing.assert_close(dx[part], case.grad[part] * scale)


def test_counters_and_cumulative_averages(ops: SimpleNamespace) -> None:
    """A half without rows anywhere is left alone; `momentum=None` is the mean over batches."""
    x = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    gathered = ops.dual_batch_norm_moments(x, 5, True, True)[None]
    means = torch.ones(3).double(), torch.ones(3).double()
    counters = torch.tensor(3), torch.tensor(8)
    _, variance, count = ops.dual_batch_norm_merge(
        gathered, means[0], None, counters[0], means[1], None, counters[1], None, 0.5
    )
    assert [int(counter) for counter in counters] == [4, 8]
    torch.testing.assert_close(means[0], 0.75 + x.mean((0, 2, 3)) / 4)
    assert torch.equal(means[1], torch.ones(3).double())
    assert count.tolist() == [20, 0] and not variance[1].any()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_opcheck(device: str, layout: str) -> None:
    case = make_case((12, 7, 5, 3), torch.float32, layout, num_main=6, relu=True)
    torch.library.opcheck(MOMENTS, (case.x, 6, True, False))
    gathered = torch.stack([MOMENTS(case.x, 6, True, True)] * 3)
    running = [torch.rand(7), torch.rand(7), torch.tensor(3)]
    again = [value.clone() for value in running]
    torch.library.opcheck(MERGE, (gathered, *running, *again, 0.1, None))
    affine = (case.weight[0], case.bias[0], case.weight[1], case.bias[1])
    statistics = (torch.zeros(2, 7), torch.ones(2, 7), torch.empty(0, dtype=torch.uint8))
    given = (case.grad, case.x, None, *affine, *statistics, torch.rand(2, 2, 7), torch.ones(2))
    torch.library.opcheck(DX, (*given, 6, True, True, True))

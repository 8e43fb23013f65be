"""More than 2^31 elements: the last rows lie past the reach of 32-bit offsets."""

import pytest
import torch
from torch import Tensor

from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from entprop_fast.kernels.loss_and_entropy import MAX_CLASSES, loss_and_entropy
from entprop_fast.norm_half import Half
from tests.gpu.cuda_ops import cuda_perturb, limits

HALF = Half()
ROWS = 2**15 + 64  # of 2^16 elements each: 2^31 + 2^22, 4.3 GB in float16
IMAGE = (64, 32, 32)
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        torch.cuda.is_available() and torch.cuda.mem_get_info()[0] < 24 * 2**30,
        reason="needs 24 GiB of free GPU memory",
    ),
]


def _images(layout: str) -> tuple[Tensor, Tensor]:
    """Zeros but for the last row, and that row."""
    x = torch.empty((ROWS, *IMAGE), dtype=torch.float16, device="cuda")
    x = torch.empty_like(x, memory_format=LAYOUTS[layout]).zero_()
    last = torch.randn(1, *IMAGE, device="cuda").half()
    x[-1:] = last
    return x, x[-1:].clone()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm(layout: str) -> None:
    x, last = _images(layout)
    y, mean, rstd, mask, _ = dual_batch_norm(x, None, HALF, HALF, ROWS - 1, True)
    alone, mean_alone, rstd_alone, *_ = dual_batch_norm(last, None, HALF, HALF, 0, True)
    torch.testing.assert_close(y[-1:], alone)
    torch.testing.assert_close(mean[1], mean_alone[1])
    assert not mean[0].any() and not y[0].any() and not y[-2].any()
    wanted = [True, False, True, True]
    dx, _, dweight, _ = dual_batch_norm_backward(
        x, x, None, HALF, HALF, mean, rstd, mask, ROWS - 1, False, wanted
    )
    dx_alone, _, dweight_alone, _ = dual_batch_norm_backward(
        last, last, None, HALF, HALF, mean_alone, rstd_alone, mask, 0, False, wanted
    )
    torch.testing.assert_close(dx[-1:], dx_alone)
    torch.testing.assert_close(dweight[1], dweight_alone[1])
    assert not dx[0].any() and not dx[-2].any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_perturb(layout: str) -> None:
    ops, (x, last) = cuda_perturb(), _images(layout)
    bounds, every = limits(x), torch.arange(ROWS, device="cuda")
    first = torch.zeros(1, dtype=torch.int64, device="cuda")
    alone = ops.gather_perturb(last, last, first, *bounds)
    x_adv = ops.gather_perturb(x, x, every, *bounds)
    assert torch.equal(x_adv[-1:], alone) and not x_adv[-2].any()
    ops.perturb_(x_adv, x, x, every, *bounds)
    ops.perturb_(alone, last, last, first, *bounds)
    assert torch.equal(x_adv[-1:], alone) and not x_adv[-2].any()


def test_loss() -> None:
    rows = 2**31 // MAX_CLASSES + 1
    logits = torch.zeros(rows, MAX_CLASSES, dtype=torch.float16, device="cuda")
    logits[-1] = torch.randn(MAX_CLASSES, device="cuda")
    labels, lam = torch.zeros(rows, dtype=torch.int64, device="cuda"), torch.ones((), device="cuda")
    results = loss_and_entropy(logits, labels, labels, lam, 0.1, "margin")
    alone = loss_and_entropy(logits[-1:], labels[-1:], labels[-1:], lam, 0.1, "margin")
    for result, expected in zip(results, alone, strict=True):
        assert torch.equal(result[-1:], expected)

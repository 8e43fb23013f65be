"""Select the k highest scores by counting, for each one, the scores that rank before it."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import KERNEL_DTYPES, on_device_of

BLOCK_ROWS = 16  # scores ranked by one program: few, so that a small batch still spreads out
BLOCK_OTHERS = 128  # scores they are compared with at a time
NUM_WARPS = 4


@triton.jit
def _sort_key(score):
    """Map float32 onto int32 in the same order, -0 beside +0, every NaN above +inf."""
    score = tl.where(score == 0, 0.0, score)
    bits = score.to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return tl.where(score != score, 0x7FFFFFFF, key)


@triton.jit(do_not_specialize=["rows", "k", "stride"])
def _select_topk(
    score,  # [rows], any float
    index,  # [k] int64, out
    rows,
    k,
    stride,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OTHERS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    key = _sort_key(tl.load(score + row * stride, mask=row < rows, other=0.0).to(tl.float32))
    before = tl.zeros([BLOCK_ROWS, BLOCK_OTHERS], tl.int32)
    for start in range(0, rows, BLOCK_OTHERS):
        other = tl.cast(start, tl.int64) + tl.arange(0, BLOCK_OTHERS)
        loaded = tl.load(score + other * stride, mask=other < rows, other=0.0)
        other_key = _sort_key(loaded.to(tl.float32))
        higher = other_key[None, :] > key[:, None]
        tied = (other_key[None, :] == key[:, None]) & (other[None, :] < row[:, None])
        before += ((higher | tied) & (other < rows)[None, :]).to(tl.int32)
    # Ranks are a permutation of 0..rows-1, so each place below k is written exactly once.
    rank = tl.sum(before, axis=1)
    tl.store(index + rank, row, mask=(row < rows) & (rank < k))


def covers(score: Tensor, k: int) -> bool:
    """Return whether `select_topk` takes this input; float64 scores do not fit the 32-bit key."""
    return score.dim() == 1 and score.dtype in KERNEL_DTYPES and 0 <= k <= score.shape[0] < 2**31


def select_topk(score: Tensor, k: int) -> Tensor:
    """Return the indices of the k highest scores: descending, ties to the lower index, NaN first.

    Args:
        score: `[B]` float32, bfloat16 or float16, any stride. Never altered.
        k: how many, `0 <= k <= B`.

    Returns:
        `[k]` int64. One launch, `B²` comparisons, the same bits at every run.
    """
    rows = score.shape[0]
    index = torch.empty(k, dtype=torch.int64, device=score.device)
    if k == 0:
        return index
    with on_device_of(score):
        _select_topk[(triton.cdiv(rows, BLOCK_ROWS),)](
            score,
            index,
            rows,
            k,
            score.stride(0),
            BLOCK_ROWS=BLOCK_ROWS,
            BLOCK_OTHERS=BLOCK_OTHERS,
            num_warps=NUM_WARPS,
        )
    return index

"""Compute per-sample loss, uncertainty score and dlogits from one read of the logits."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import KERNEL_DTYPES, on_device_of

SCORES = {"entropy": 0, "confidence": 1, "cross_entropy": 2, "margin": 3}
# A row lives in registers: 16 values a thread at 16 warps.
MAX_CLASSES = 8192


@triton.jit(do_not_specialize=["class_units", "stride_units"])
def _loss_and_entropy(
    logits,  # [rows, classes]
    labels,  # [rows] int64
    labels_b,  # [rows] int64
    lam,  # 0-dim
    loss,  # [rows] float32, out
    entropy,  # [rows] float32, out
    score,  # [rows] float32, out
    dlogits,  # [rows, classes] contiguous, out
    class_units,  # classes / ALIGN
    stride_units,  # distance of the logits' rows / ALIGN
    label_smoothing,
    ALIGN: tl.constexpr,
    SCORE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # Said this way the compiler knows the alignment and loads 16 bytes at a time also where the
    # number of classes is 1000 or 100, which its own hint, divisible by 16, does not reach.
    classes = class_units * ALIGN
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < classes
    x = tl.load(logits + row * stride_units * ALIGN + column, mask=inside, other=float("-inf"))
    x = x.to(tl.float32)
    y_a = tl.load(labels + row)
    y_b = tl.load(labels_b + row)
    weight = tl.load(lam).to(tl.float32)
    smoothing = tl.cast(label_smoothing, tl.float32)
    nan = float("nan")

    # A NaN or +inf logit turns `total` and with it the whole row into NaN, as torch's softmax does.
    shifted = x - tl.max(x, axis=0)
    exponential = tl.where(inside, tl.exp(shifted), 0.0)
    total = tl.sum(exponential, axis=0)
    log_p = tl.where(inside, shifted - tl.log(total), 0.0)
    p = exponential / total

    # p log p is 0 where p underflows or the logit is -inf.
    h = -tl.sum(tl.where(p == 0, 0.0, p * log_p), axis=0)
    is_a = column == y_a
    is_b = column == y_b
    valid_a = (y_a >= 0) & (y_a < classes)
    valid = valid_a & (y_b >= 0) & (y_b < classes)
    target = weight * is_a.to(tl.float32) + (1.0 - weight) * is_b.to(tl.float32)
    target = (1.0 - smoothing) * target + smoothing / classes
    # A class that is not in the target costs nothing, however unlikely: 0 * -inf is 0 here.
    mixed = -tl.sum(tl.where(target == 0, 0.0, target * log_p), axis=0)
    mixed = tl.where(valid, mixed, nan)
    gradient = tl.where(valid, p - target, nan)

    if SCORE == 0:
        value = h
    elif SCORE == 1:
        value = -1.0 / total  # the largest logit has exp(shifted) = 1
    elif SCORE == 2:
        value = tl.where(valid_a, -tl.sum(tl.where(is_a, log_p, 0.0), axis=0), nan)
    else:
        wrong = tl.max(tl.where(inside & ~is_a, p, float("-inf")), axis=0)
        value = wrong - tl.sum(tl.where(is_a, p, 0.0), axis=0)
        value = tl.where(valid_a & (total == total), value, nan)

    tl.store(loss + row, mixed)
    tl.store(entropy + row, h)
    tl.store(score + row, value)
    out = dlogits + row * classes + column
    tl.store(out, gradient.to(dlogits.dtype.element_ty), mask=inside)


def covers(
    logits: Tensor, labels: Tensor, labels_b: Tensor, lam: Tensor, *_: object
) -> bool:  # fmt: skip
    """Return whether `loss_and_entropy` takes these inputs; the rest it takes always."""
    return (
        logits.dim() == 2
        and logits.dtype in KERNEL_DTYPES
        and 0 < logits.shape[1] <= MAX_CLASSES
        and logits.stride(1) == 1
        and labels.dtype == labels_b.dtype == torch.int64
        and labels.is_contiguous()
        and labels_b.is_contiguous()
        and logits.device == labels.device == labels_b.device == lam.device
    )


def loss_and_entropy(
    logits: Tensor,
    labels: Tensor,
    labels_b: Tensor,
    lam: Tensor,
    label_smoothing: float,
    score: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute loss, entropy, score and gradient of every sample, one launch.

    Args:
        logits: `[B, K]` float32, bfloat16 or float16, last stride 1; computed in float32.
        labels: `[B]` int64, the original labels; one outside `[0, K)` makes its row's loss and
            dlogits NaN.
        labels_b: `[B]` int64, the MixUp partners' labels.
        lam: 0-dim floating tensor on the same device.
        label_smoothing: as in `F.cross_entropy`.
        score: a key of `SCORES`.

    Returns:
        loss `[B]`, entropy `[B]`, score `[B]` in float32 and dlogits `[B, K]` in logits' dtype.
    """
    rows, classes = logits.shape
    # Three allocations, not views of one: the outputs of an op may not share storage.
    loss, entropy, value = (
        torch.empty(rows, dtype=torch.float32, device=logits.device) for _ in range(3)
    )
    dlogits = torch.empty((rows, classes), dtype=logits.dtype, device=logits.device)
    if rows == 0:
        return loss, entropy, value, dlogits
    block = triton.next_power_of_2(classes)
    align = math.gcd(classes, logits.stride(0), 16)
    with on_device_of(logits):
        _loss_and_entropy[(rows,)](
            logits,
            labels,
            labels_b,
            lam,
            loss,
            entropy,
            value,
            dlogits,
            classes // align,
            logits.stride(0) // align,
            label_smoothing,
            ALIGN=align,
            SCORE=SCORES[score],
            BLOCK=block,
            num_warps=min(16, max(1, block // 256)),
        )
    return loss, entropy, value, dlogits

"""Launch the merge of several processes' moments; it moves the running statistics, too."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .device import KERNEL_DTYPES, launch, on_device_of

_BLOCK_C = 128
_PROCESSES = 8  # merged at a time
_NUM_WARPS = 4


@triton.jit
def _move(running, value, rate, column, inside):
    if running is not None:
        # By float32: the interpreter knows no cast between bfloat16 and float64.
        old = tl.load(running + column, mask=inside, other=0.0).to(tl.float32).to(tl.float64)
        new = ((1.0 - rate) * old + rate * value).to(tl.float32)
        tl.store(running + column, new.to(running.dtype.element_ty), mask=inside)


@triton.jit
def _counter_of(num_batches):
    """Return a half's number of batches so far, 0 where nobody counts."""
    counter = tl.zeros([], tl.int64)
    if num_batches is not None:
        counter = tl.load(num_batches)
    return counter


@triton.jit(do_not_specialize=["processes", "channels"])
def _merge(
    gathered,  # [processes, 2, 2 * channels + 1] float32
    running_mean,
    running_var,
    num_batches,  # int64 []
    aux_running_mean,
    aux_running_var,
    aux_num_batches,
    mean_out,  # [2, channels] float32, out
    variance_out,  # [2, channels] float32, out
    count_out,  # [2] float32, out
    processes,
    channels,
    momentum,
    aux_momentum,
    CUMULATIVE: tl.constexpr,  # a half's momentum is 1 over its number of batches
    AUX_CUMULATIVE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PROCESSES: tl.constexpr,
):
    # In float64, of which there is little: no value is far from another one.
    row = tl.program_id(1)
    is_aux = row == 1
    width = 2 * channels + 1
    count = tl.zeros([1], tl.float64)
    for i in range(0, processes, PROCESSES):
        process = i + tl.arange(0, PROCESSES)
        address = gathered + (2 * process + row) * width + 2 * channels
        count += tl.sum(
            tl.load(address, mask=process < processes, other=0.0).to(tl.float64), axis=0
        )
    seen = count > 0  # [1]

    rate = tl.where(is_aux, aux_momentum, momentum).to(tl.float64)
    counter = tl.where(is_aux, _counter_of(aux_num_batches), _counter_of(num_batches))
    cumulative = tl.where(is_aux, AUX_CUMULATIVE, CUMULATIVE)
    rate = tl.where(cumulative, 1.0 / (counter + 1).to(tl.float64), rate)

    # All of them in one program where it reads the number of batches that it changes at the end.
    for block in range(tl.program_id(0), tl.cdiv(channels, BLOCK_C), tl.num_programs(0)):
        column = block * BLOCK_C + tl.arange(0, BLOCK_C)
        inside = column < channels
        mean = tl.zeros([BLOCK_C], tl.float64)
        for i in range(0, processes, PROCESSES):
            process = i + tl.arange(0, PROCESSES)
            here = (process < processes)[:, None] & inside[None, :]
            address = gathered + (2 * process + row) * width
            n = tl.load(address + 2 * channels, mask=process < processes, other=0.0)
            value = tl.load(address[:, None] + column[None, :], mask=here, other=0.0)
            mean += tl.sum(value.to(tl.float64) * n.to(tl.float64)[:, None], axis=0)
        mean = mean / tl.where(seen, count, 1.0)
        m2 = tl.zeros([BLOCK_C], tl.float64)
        for i in range(0, processes, PROCESSES):
            process = i + tl.arange(0, PROCESSES)
            here = (process < processes)[:, None] & inside[None, :]
            address = gathered + (2 * process + row) * width
            n = tl.load(address + 2 * channels, mask=process < processes, other=0.0)
            value = tl.load(address[:, None] + column[None, :], mask=here, other=0.0)
            within = tl.load(address[:, None] + channels + column[None, :], mask=here, other=0.0)
            apart = value.to(tl.float64) - mean[None, :]
            spread = within.to(tl.float64) + apart * apart * n.to(tl.float64)[:, None]
            m2 += tl.sum(tl.where(here, spread, 0.0), axis=0)
        variance = m2 / tl.where(seen, count, 1.0)
        tl.store(mean_out + row * channels + column, mean.to(tl.float32), mask=inside)
        tl.store(variance_out + row * channels + column, variance.to(tl.float32), mask=inside)
        unbiased = m2 / tl.where(count > 1, count - 1, 1.0)
        moves = inside & seen
        if is_aux:
            _move(aux_running_mean, mean, rate, column, moves)
            _move(aux_running_var, unbiased, rate, column, moves)
        else:
            _move(running_mean, mean, rate, column, moves)
            _move(running_var, unbiased, rate, column, moves)

    if tl.program_id(0) == 0:
        tl.store(count_out + row, tl.sum(count, axis=0).to(tl.float32))
        batches = counter + tl.sum(tl.where(seen, 1, 0), axis=0)
        if is_aux:
            if aux_num_batches is not None:
                tl.store(aux_num_batches, batches)
        else:
            if num_batches is not None:
                tl.store(num_batches, batches)


def covers(gathered: Tensor, main: Any, aux: Any) -> bool:
    """Return whether `dual_batch_norm_merge` takes these."""
    moved = [t for half in (main, aux) for t in half[:2] if t is not None]
    return (
        gathered.dtype == torch.float32
        and gathered.is_contiguous()
        and gathered.shape[2] > 1
        and gathered.numel() < 2**31
        and all(t.dtype in KERNEL_DTYPES and t.is_contiguous() for t in moved)
    )


def dual_batch_norm_merge(gathered: Tensor, main: Any, aux: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Merge moments by Chan's formula in the order of processes, and move what moves by them.

    Args:
        gathered: `[processes, 2, 2C + 1]` float32, contiguous.
        main, aux: `Running` of the op: moved in place, the variance by the unbiased one, but not
            where no process has rows.

    Returns:
        mean and biased variance `[2, C]`, number of values `[2]`, float32. One launch.
    """
    processes, channels = gathered.shape[0], gathered.shape[2] // 2
    mean = gathered.new_empty((2, channels))
    variance, count = torch.empty_like(mean), gathered.new_empty(2)
    cumulative = [half.momentum is None for half in (main, aux)]
    blocks = 1 if any(cumulative) else -(-channels // _BLOCK_C)
    constants = {
        "CUMULATIVE": cumulative[0],
        "AUX_CUMULATIVE": cumulative[1],
        "BLOCK_C": _BLOCK_C,
        "PROCESSES": _PROCESSES,
    }
    momenta = [0.0 if half.momentum is None else float(half.momentum) for half in (main, aux)]
    tensors = (gathered, *main[:3], *aux[:3], mean, variance, count)
    with on_device_of(gathered):
        launch(
            _merge, (blocks, 2), tensors, (processes, channels, *momenta), (), constants,
            _NUM_WARPS,
        )  # fmt: skip
    return mean, variance, count

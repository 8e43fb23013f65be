"""Check what the ops require of their arguments, once, where an op is implemented.

Public functions and raw ops, kernels and reference refuse the same arguments with a ValueError that
names the argument. csrc/cpu/check.h says the same in C++; no check reads a tensor's values.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from entprop_fast.ops.layout import is_channels_last
from entprop_fast.torch_internals import transforms_active

FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def require_floating(name: str, value: Tensor, shape: str, fits: bool) -> None:
    """Require that `value` holds floating-point numbers and `fits` the shape in the message."""
    if not fits or value.dtype not in FLOATING:
        raise ValueError(f"{name}: expected floating {shape}, got {_described(value)}")


def require(name: str, value: Tensor, shape: Sequence[int], dtype: torch.dtype, x: Tensor) -> None:
    """Require that `value` has this shape and dtype, and lies on the device of `x`."""
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} {list(shape)}, got {_described(value)}")
    require_device(name, value, x)


def require_images(images: Tensor) -> None:
    """Require that `images` are [B, C, H, W], grey or in three colours, of at least a pixel."""
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        expected = "[B, C, H, W] with C of 1 or 3"
        raise ValueError(f"images: expected {expected}, got {_described(images)}")


def require_index(name: str, value: Tensor, rows: int | None, x: Tensor) -> None:
    """Require that `value` is int64 [rows] (None: any number of them) on the device of `x`."""
    if value.dtype != torch.int64 or value.dim() != 1 or rows not in (None, value.shape[0]):
        length = "m" if rows is None else rows
        raise ValueError(f"{name}: expected int64 [{length}], got {_described(value)}")
    require_device(name, value, x)


def require_device(name: str, value: Tensor, x: Tensor) -> None:
    """Require that `value` lies on the device of `x`."""
    if value.device != x.device:
        raise ValueError(f"{name}: expected a tensor on {x.device}, got one on {value.device}")


Named = Sequence[tuple[str, Tensor | None]]
_Extent = tuple[int, int, str, Tensor]  # first byte, the byte after the last, name, tensor


def require_apart(written: Named, others: Named) -> None:
    """Require that no written tensor shares memory with another or itself, as for `out=`.

    As there, strided views that reach into each other's range of memory pass: what takes them
    computes everything before it writes anything.
    """
    if torch.compiler.is_compiling() or transforms_active():
        return  # no memory to look at; whoever traces gives each tensor its own
    changed, read = _extents(written), _extents(others)
    for *_, name, tensor in changed:
        if _overlaps_itself(tensor):
            raise ValueError(
                f"{name}: more than one of its elements refers to a single memory location; "
                f"give it memory of its own ({name}.clone())"
            )
    if _disjoint(changed + read):
        return
    for place, one in enumerate(changed):
        for other in changed[place + 1 :] + read:
            if one[0] < other[1] and other[0] < one[1] and _share_memory(one[3], other[3]):
                raise ValueError(
                    f"{one[2]}: some of its elements and some of {other[2]} refer to a single "
                    f"memory location; give it memory of its own ({one[2]}.clone())"
                )


def _described(value: Tensor) -> str:
    return f"{value.dtype} {list(value.shape)}"


def _extents(tensors: Named) -> list[_Extent]:
    """Return where each of the tensors that have memory lies."""
    found = []
    for name, t in tensors:
        # Others than these two (a compiler's, say) may have no memory of their own.
        if t is None or type(t) not in (Tensor, nn.Parameter) or t.numel() == 0 or t.is_meta:
            continue
        last = t.numel() - 1
        if not t.is_contiguous():
            last = sum((size - 1) * step for size, step in zip(t.shape, t.stride(), strict=True))
        first = t.data_ptr()
        found.append((first, first + (last + 1) * t.element_size(), name, t))
    return found


def _disjoint(extents: list[_Extent]) -> bool:
    ordered = sorted(extent[:2] for extent in extents)
    return all(one[1] <= other[0] for one, other in itertools.pairwise(ordered))


def _overlaps_itself(t: Tensor) -> bool:
    """Return whether a step along a dimension may stay within what the shorter steps cover."""
    if t.is_contiguous():
        return False
    reach = 0
    for step, size in sorted(zip(t.stride(), t.shape, strict=True)):
        if size > 1 and step <= reach:
            return True
        reach += (size - 1) * step
    return False


def _share_memory(a: Tensor, b: Tensor) -> bool:
    """Return whether tensors whose ranges of memory meet share some, as far as can be told."""
    if a.device.type == "mps" and a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr():
        return False  # addresses there are of a buffer's description
    if not all(t.dim() < 2 or t.is_contiguous() or is_channels_last(t) for t in (a, b)):
        return False
    # Columns of one table: both take the same steps, and start apart.
    steps = [
        step * t.element_size()
        for t in (a, b)
        for step, size in zip(t.stride(), t.shape, strict=True)
        if size > 1
    ]
    period = math.gcd(*steps)
    if period == 0:
        return True
    apart = (b.data_ptr() - a.data_ptr()) % period
    return apart < a.element_size() or period - apart < b.element_size()

"""Value checks of `prime_chains`, a kernel against the reference: one primitive, and chains."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from entprop_fast.ops.prime_chains import REFERENCE_OP, Primitive

PrimeChains = Callable[..., Tensor]


Kinds = tuple[Primitive, ...] | None  # of a chain in order; None: two drawn, the identity too


def given(
    shape: tuple[int, int, int, int], kinds: Kinds, width: int, highest: int
) -> tuple[Tensor, ...]:
    """Arguments of the op but for the last two."""
    torch.manual_seed(sum(shape) + highest)
    programs = (shape[0], width, 2 if kinds is None else len(kinds))
    images = torch.randint(256, shape).to(torch.uint8)
    codes = torch.randint(4, programs) if kinds is None else torch.tensor(kinds).expand(programs)
    keys = torch.randint(-(2**62), 2**62, programs)
    bands = torch.randint(1, highest + 1, (*programs, 2)).sort(dim=-1).values.to(torch.int32)
    scale = torch.rand(programs) * 0.1
    weights = torch.rand(programs[:2]) / width
    return images, codes.to(torch.uint8), keys, bands, scale, weights, torch.rand(shape[0])


def check(
    shape: tuple[int, int, int, int],
    kinds: Kinds,
    last: bool,
    levels: bool,
    highest: int,
    kernel: int,
    op: PrimeChains,
    device: str,
) -> None:
    """Compare one primitive of each chain, or chains of two of which a few values may differ."""
    images, *program = given(shape, kinds, 2, highest)
    images = images if levels else images / 255
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    expected: Tensor = REFERENCE_OP(images, *program, highest, kernel)
    moved = [value.to(device) for value in (images, *program)]
    found = op(*moved, highest, kernel).cpu()
    assert found.dtype == expected.dtype and found.stride() == expected.stride()
    apart = (found.double() - expected.double()).abs() / (255 if levels else 1)
    assert apart.flatten().quantile(1 if kinds and len(kinds) == 1 else 0.95) < (
        1.01 / 255 if levels else 5e-4
    )
    assert apart.mean() < 1e-3


CASES = {
    f"{'-'.join(one.name.lower() for one in kinds or ()) or 'chains'}-{'x'.join(map(str, shape))}-"
    f"{'last' if last else 'planes'}-{'levels' if levels else 'float'}": partial(
        check, shape, kinds, last, levels, highest, kernel
    )
    for kinds, shape, last, levels, highest, kernel in (
        ((Primitive.WARP,), (2, 3, 9, 14), False, False, 12, 3),
        ((Primitive.WARP,), (2, 1, 2, 5), True, True, 40, 3),
        ((Primitive.COLOR,), (1, 3, 33, 34), False, False, 20, 3),
        ((Primitive.COLOR,), (1, 3, 5, 7), True, True, 90, 3),
        ((Primitive.FILTER,), (2, 3, 5, 3), True, False, 3, 5),
        ((Primitive.FILTER,), (2, 1, 1, 6), False, True, 3, 3),
        ((Primitive.IDENTITY,), (1, 3, 2, 2), True, True, 3, 3),
        (None, (2, 3, 11, 8), False, False, 15, 3),
        (None, (2, 3, 8, 13), True, True, 15, 5),
        (None, (2, 3, 18, 17), False, True, 9, 3),  # more pixels than levels
        ((Primitive.WARP, Primitive.COLOR), (2, 3, 18, 17), False, True, 9, 3),
    )
}

"""Checks of the sums and counters in the dual batch norm's launches: the bits of sums outside."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from entprop_fast.norm_half import Half
from tests.kernel_cases.dual_batch_norm import (
    BF16,
    CHANNELS_LAST,
    CONTIGUOUS,
    EPSILONS,
    MOMENTA,
    PARAMETERS,
    Norm,
)


@dataclass(frozen=True)
class Sums:
    """One call of the op, and which sums it has."""

    norm: Norm
    addend: bool = True
    again: bool = True
    dtotal: bool = True


def summed(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a + b``; in bfloat16 on the CPU as Triton's interpreter rounds, towards zero."""
    if a.is_cuda or a.dtype != BF16:
        return a + b
    wide = a.float() + b.float()
    cut = (wide.view(torch.int32) & -65536).view(torch.float32)
    return torch.empty_like(a).copy_(torch.where(wide.isnan(), wide, cut))


def check(case: Sums, op: Any, device: str) -> None:
    """Compare every output with that of the op between sums of their own, bit for bit."""
    norm = case.norm
    t = {name: None if v is None else v.to(device) for name, v in norm.tensors().items()}
    x, residual, grad = t["x"], t["residual"], t["grad"]
    assert x is not None and grad is not None
    more = [grad.roll(number, 0).contiguous().view_as(grad) for number in (1, 2, 3)]
    addend, again, dtotal = (
        value if wanted else None
        for value, wanted in zip(more, (case.addend, case.again, case.dtotal), strict=True)
    )

    def halves(count: Callable[[int], Tensor | None]) -> list[Half]:
        values: Any = [
            [None if (v := t[g + n]) is None else v.clone() for n in PARAMETERS] for g in HALF
        ]
        settings = zip(norm.training, MOMENTA, EPSILONS, strict=True)
        given: list[list[Any]] = [[*values[k], *more, count(k)] for k, more in enumerate(settings)]
        return [Half(*one) for one in given]

    counted = halves(lambda k: torch.tensor(2**40 + k, device=device))
    plain = halves(lambda k: None)
    total = x if addend is None else summed(x, addend)
    settings = norm.num_main, norm.relu
    y, mean, rstd, mask, found = op.forward(x, residual, *counted, *settings, addend)
    expected = op.forward(total, residual, *plain, *settings)
    outputs = {"y": y, "mean": mean, "rstd": rstd, "mask": mask}
    _assert_same(outputs, dict(zip(outputs, expected, strict=False)))
    if addend is None:
        assert found.shape == (0,)
    else:
        _assert_same({"total": found}, {"total": total})
        assert found.stride() == x.stride() and found.data_ptr() != x.data_ptr()
    rows = norm.num_main, norm.shape[0] - norm.num_main
    for k, (ours, theirs) in enumerate(zip(counted, plain, strict=True)):
        assert ours.num_batches == 2**40 + k + (norm.training[k] and rows[k] > 0)
        for name in ("running_mean", "running_var"):
            if (moved := getattr(ours, name)) is not None:
                _assert_same({name: moved}, {name: getattr(theirs, name)})

    affine = (*plain, mean, rstd, mask, *settings, list(norm.wanted))
    gradients = op.backward(grad, total, residual, *affine, again, dtotal)
    both = grad if again is None else summed(grad, again)
    # With an `again` that changes nothing: one more tensor has smaller tiles, other partial sums.
    nothing = None if again is None else torch.zeros_like(grad)
    dx, *others = op.backward(both, total, residual, *affine, nothing)
    dx = dx if dtotal is None or not norm.wanted[0] else summed(dx, dtotal)
    names = ("dx", "dresidual", "dweight", "dbias")
    _assert_same(
        dict(zip(names, gradients, strict=True)), dict(zip(names, (dx, *others), strict=True))
    )


HALF = ("", "aux_")


def _assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, value in ours.items():
        same = torch.equal(value.nan_to_num(1e9), theirs[name].nan_to_num(1e9))
        assert same, f"{name} has not the bits of a sum of its own"


def _cases() -> dict[str, Sums]:
    base = Norm()
    cases: dict[str, Sums] = {}
    for layout, suffix in ((CHANNELS_LAST, "channels_last"), (CONTIGUOUS, "contiguous")):
        own = replace(base, layout=layout)
        norms = {
            "float32": own,
            "bfloat16": replace(own, dtype=BF16, shape=(4, 33, 2, 2), num_main=3),
            "float16": replace(own, dtype=torch.float16, shape=(4, 70, 1, 3), num_main=2),  # blocks
            "one-pixel": replace(own, shape=(9, 16, 1, 1), num_main=5),
            "many-tiles": replace(own, shape=(4, 18, 3, 3), num_main=3),
            "frozen": replace(own, training=(False, False)),
            "main-frozen": replace(own, training=(False, True)),
            "special-values": replace(own, special=True, other_layout=True),
            "without-dx": replace(own, wanted=(False, True, True, True), residual=True),
        }
        for name, norm in norms.items():
            cases[f"{name}-{suffix}"] = Sums(norm)
        residual = replace(own, shape=(4, 18, 3, 3), num_main=2, residual=True)
        cases |= {
            f"residual-{suffix}": Sums(residual),
            f"two-readers-{suffix}": Sums(residual, addend=False, dtotal=False),
            f"sum-alone-{suffix}": Sums(own, again=False),
            f"counters-alone-{suffix}": Sums(own, addend=False, again=False, dtotal=False),
        }
    return cases


CASES: dict[str, Callable[[Any, str], None]] = {
    name: partial(check, case) for name, case in _cases().items()
}

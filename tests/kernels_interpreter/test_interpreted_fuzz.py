"""FOUND S3: random and spoiled arguments through Triton's launchers, as registered for CUDA."""

from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.ops.backend import TRITON_OPS
from tests.ops import fuzz

# Each case of these is many programs, which the interpreter runs one after the other.
FEW = {"image_chains": 6}
CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)


def _launched(name: str, *arguments: Any) -> Any:
    """Return the op as CUDA tensors get it, but for the mask, which CUDA never packs."""
    found = fuzz.overload(name).redispatch(CUDA, *arguments)
    if name != "dual_batch_norm":
        return found
    packed: Tensor = fuzz.overload(name, "_reference")(*map(_copied, arguments))[3]
    return (*found[:3], packed, *found[4:])


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


@pytest.mark.parametrize("name", TRITON_OPS)
@pytest.mark.filterwarnings("ignore:var_mean")
def test_random_arguments(name: str) -> None:
    cases = [f"{name}/triton.{n}" for n in range(FEW.get(name, 60))]
    arguments = {case: fuzz.arguments_of(name, case) for case in cases}
    given = [case for case, a in arguments.items() if _on_cuda(a) and not _sums_in_bfloat16(a)]
    told = [fuzz.differ(name, case, lambda *a: _launched(name, *a)) for case in given]
    assert len(given) > len(cases) // 2 and [one for one in told if one] == []


def _on_cuda(arguments: dict[str, Any]) -> bool:
    """Return whether CUDA could be called so: with a mask it refuses, and "meta" goes elsewhere."""
    mask = arguments.get("mask")
    tensors = [value for value in arguments.values() if isinstance(value, Tensor)]
    return (mask is None or mask.numel() == 0) and not any(t.is_meta for t in tensors)


def _sums_in_bfloat16(arguments: dict[str, Any]) -> bool:
    """Return whether a sum is rounded to bfloat16, where Triton's interpreter truncates.

    tests/kernel_cases/dual_batch_norm_sums.py compares such sums with a truncated one.
    """
    sums = (arguments.get(name) for name in ("addend", "again", "dtotal"))
    return any(t is not None and t.dtype == torch.bfloat16 for t in sums)

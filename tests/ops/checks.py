"""The three-way check, inputs in every layout, and the ops that run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "sliced": lambda x: torch.stack([x, x + 1], dim=2).flatten(1, 2)[:, ::2],
    "expanded": lambda x: x[:, :, :1, :1].expand(x.shape),
}


def assert_no_worse(
    result: Tensor, same_dtype: Tensor, truth: Tensor, *, addend: float = 0.0, name: str = "result"
) -> None:
    """Assert err(result) <= err(torch in the same dtype) + one unit of rounding, against float64.

    The unit is that of the largest result, or of `addend`, the largest term summed on the way.
    float64 has no wider truth here: relative 1e-12 plus absolute 1e-12.
    """
    if same_dtype.dtype == torch.float64:
        torch.testing.assert_close(result, truth, rtol=1e-12, atol=1e-12, equal_nan=True)
        return
    scale = truth[truth.isfinite()].abs().max().item() if truth.isfinite().any() else 1.0
    unit = torch.finfo(same_dtype.dtype).eps * max(scale, addend)
    assert result.shape == truth.shape
    assert torch.equal(result.isnan(), truth.isnan())
    finite = truth.isfinite()
    assert torch.equal(result.double()[~finite].nan_to_num(), truth[~finite].nan_to_num())
    error = (result.double() - truth)[finite].abs().max().item() if finite.any() else 0.0
    allowed = (same_dtype.double() - truth)[finite].abs().max().item() if finite.any() else 0.0
    told = f"{name}: error {error:.3g}, torch's {allowed:.3g}, unit {unit:.3g}"
    assert error <= allowed + unit, told


class Watching(TorchDispatchMode):
    """Keeps the ops it sees."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **kwargs or {})

"""The three-way check: a kernel may err as much as PyTorch in the same dtype, plus one rounding."""

import torch
from torch import Tensor


def assert_as_accurate(
    name: str, result: Tensor, torch_result: Tensor, truth: Tensor, scale: float | None = None
) -> None:
    """Compare the largest errors against float64 `truth`; NaN and infinities must coincide.

    One rounding is that of a number of size `scale`, by default the largest of `truth`: for a mean
    it is the size of what was summed.
    """
    result, torch_result = result.detach().cpu(), torch_result.detach().cpu()
    unit = torch.finfo(result.dtype).eps
    ours, theirs = result.double(), torch_result.double()
    finite = truth.isfinite()
    assert torch.equal(ours.isnan(), truth.isnan()), f"{name}: NaN in other places"
    assert torch.equal(ours[truth.isinf()], truth[truth.isinf()]), f"{name}: other infinities"
    if not finite.any():
        return
    error = (ours - truth)[finite].abs().max().item()
    allowed = (theirs - truth)[finite].abs().max().item()
    rounding = unit * (scale or truth[finite].abs().max().item())
    assert error <= allowed + rounding, f"{name}: {error:.3e} > {allowed:.3e} + {rounding:.3e}"

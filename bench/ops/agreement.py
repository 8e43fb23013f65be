"""Check that the contenders compute the same: else a ratio means nothing."""

import torch
from torch import Tensor

from bench.timing import Contender

# How far a result may be from eager's, as a share of its length (both as vectors), by the dtype of
# the case. Not value by value: a ReLU's input of rounding size may fall to either side, and then
# the gradient differs by its whole value. Against float64 such signs put eager itself off by 3e-3
# in channels_last float32 (ours by 1e-7); in bfloat16 it rounds before it adds the residual.
TOLERANCE = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def disagreement(contenders: dict[str, Contender], dtype: torch.dtype) -> str | None:
    """Say what differs between eager and the others, or None.

    Ours is called last: it may change its inputs, as `perturb_` does.
    """
    expected = contenders["eager"]()
    for name in sorted(contenders.keys() - {"eager"}, key=lambda name: name == "ours"):
        results = contenders[name]()
        if len(results) != len(expected):
            return f"{name} returns {len(results)} results, eager {len(expected)}"
        for position, pair in enumerate(zip(results, expected, strict=True)):
            if not _agree(*pair, dtype):
                return f"result {position} of {name} is not eager's"
    return None


def _agree(result: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    if result.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return torch.equal(result, expected)
    wanted = expected.detach().float()
    error = torch.linalg.vector_norm(result.detach().float() - wanted)
    # NaN compares as false.
    return bool(error <= TOLERANCE[dtype] * torch.linalg.vector_norm(wanted))

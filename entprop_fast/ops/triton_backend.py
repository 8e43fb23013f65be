"""The Triton launchers as the CUDA kernels of the ops; inputs they do not cover: the reference."""

from collections.abc import Callable
from typing import Any

from entprop_fast.ops import dual_batch_norm_reference
from entprop_fast.ops.library import LIBRARY
from entprop_fast.ops.loss_and_entropy import reference_op as loss_reference
from entprop_fast.ops.select_topk import reference as topk_reference


def guarded(
    covers: Callable[..., bool],
    asked: int,
    launch: Callable[..., Any],
    reference: Callable[..., Any],
) -> Callable[..., Any]:
    """`launch` where `covers`, given the first `asked` arguments, says so; else `reference`."""

    def kernel(*arguments: Any) -> Any:
        chosen = launch if covers(*arguments[:asked]) else reference
        return chosen(*arguments)

    return kernel


def register() -> None:
    """Register the launchers for CUDA.

    Raises:
        ImportError: Triton is not installed.
    """
    from entprop_fast.kernels import dual_batch_norm as norm
    from entprop_fast.kernels import dual_batch_norm_backward as norm_backward
    from entprop_fast.kernels import loss_and_entropy as loss
    from entprop_fast.kernels import select_topk as topk

    kernels = {
        "dual_batch_norm": guarded(
            norm.covers, 10, norm.dual_batch_norm, dual_batch_norm_reference.forward
        ),
        "dual_batch_norm_backward": guarded(
            norm_backward.covers,
            7,
            norm_backward.dual_batch_norm_backward,
            dual_batch_norm_reference.backward,
        ),
        "loss_and_entropy": guarded(loss.covers, 4, loss.loss_and_entropy, loss_reference),
        "select_topk": guarded(topk.covers, 2, topk.select_topk, topk_reference),
    }
    for name, kernel in kernels.items():
        LIBRARY.impl(name, kernel, "CUDA")

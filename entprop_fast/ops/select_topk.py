"""Select the rows of highest uncertainty."""

from typing import NamedTuple, cast

import torch
from torch import Tensor

from entprop_fast.ops.backend import uses_kernels
from entprop_fast.ops.library import define
from entprop_fast.ops.loss_and_entropy import loss_and_entropy
from entprop_fast.ops.tensor_checks import require_floating

SCHEMA = "select_topk(Tensor score, int k) -> Tensor"


def check(score: Tensor, k: int) -> None:
    """Refuse arguments of the op that do not fit."""
    require_floating("score", score, "[B]", score.dim() == 1)
    if not 0 <= k <= score.shape[0]:
        raise ValueError(f"k={k}: expected 0 to {score.shape[0]}, the length of score")


def reference(score: Tensor, k: int) -> Tensor:
    """Return the first k of a stable descending sort, in which PyTorch puts NaN first."""
    return torch.sort(score, descending=True, stable=True).indices[:k].clone()


def _fake(score: Tensor, k: int) -> Tensor:
    return score.new_empty(k, dtype=torch.int64)


OP, REFERENCE_OP = define(SCHEMA, check, reference, _fake)


def select_topk(score: Tensor, k: int) -> Tensor:
    """Return the indices of the `k` highest scores: descending, ties to the lower index, NaN first.

    The selection of docs/algorithm.md, (4).

    Args:
        score: [B], floating.
        k: how many, 0 to B.

    Returns:
        int64 [k].

    Raises:
        ValueError: `score` not one-dimensional and floating, or `k` outside `[0, B]`.
    """
    if score.requires_grad:
        score = score.detach()
    if uses_kernels(score):
        return cast(Tensor, OP(score, k))
    check(score, k)
    return reference(score, k)


class LossAndSelection(NamedTuple):
    """Hold a `LossAndEntropy`, and the selected rows: int64 [k]."""

    loss: Tensor
    entropy: Tensor
    score: Tensor
    selected: Tensor


def entropy_topk(
    logits: Tensor,
    labels: Tensor,
    k: int,
    labels_b: Tensor | None = None,
    lam: Tensor | None = None,
    label_smoothing: float = 0.0,
    score: str = "entropy",
) -> LossAndSelection:
    """Call `loss_and_entropy`, then `select_topk` of its score; arguments and errors are theirs."""
    result = loss_and_entropy(logits, labels, labels_b, lam, label_smoothing, score)
    return LossAndSelection(*result, select_topk(result.score, k))

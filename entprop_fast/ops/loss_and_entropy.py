"""Compute loss, uncertainty and logit gradient of a batch, from one read of the logits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from entprop_fast.ops.backend import uses_kernels
from entprop_fast.ops.library import define
from entprop_fast.ops.tensor_checks import FLOATING, require_device, require_floating, require_index

SCHEMA = (
    "loss_and_entropy(Tensor logits, Tensor labels, Tensor labels_b, Tensor lam, "
    "float label_smoothing, str score) "
    "-> (Tensor loss, Tensor entropy, Tensor score, Tensor dlogits)"
)
SCORES = ("entropy", "confidence", "cross_entropy", "margin")


def check(
    logits: Tensor,
    labels: Tensor,
    labels_b: Tensor,
    lam: Tensor,
    label_smoothing: float,
    score: str,
) -> None:
    """Refuse arguments of the op that do not fit."""
    shape = logits.shape
    require_floating("logits", logits, "[B, K]", len(shape) == 2 and shape[1] > 0)
    require_index("labels", labels, shape[0], logits)
    require_index("labels_b", labels_b, shape[0], logits)
    if lam.dim() != 0 or lam.dtype not in FLOATING:
        got = f"{lam.dtype} {list(lam.shape)}"
        raise ValueError(f"lam: expected a 0-dim tensor of a floating dtype, got {got}")
    require_device("lam", lam, logits)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing}: expected 0 to 1")
    if score not in SCORES:
        raise ValueError(f"score={score!r}: expected one of {', '.join(SCORES)}")


class LossAndEntropy(NamedTuple):
    """Hold per-sample results [B], float32 (float64 for float64 logits)."""

    loss: Tensor
    entropy: Tensor
    score: Tensor


def _label_column(labels: Tensor, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return labels as a safe gather index [B, 1], and NaN where one was out of range, else 0."""
    outside = (labels < 0) | (labels >= classes)
    poison = torch.zeros_like(labels, dtype=dtype).masked_fill(outside, torch.nan)
    return labels.clamp(0, classes - 1).unsqueeze(1), poison.unsqueeze(1)


def _score(name: str, log_p: Tensor, p: Tensor, entropy: Tensor, column: Tensor) -> Tensor:
    if name == "entropy":
        return entropy.clone()
    if name == "confidence":
        return -p.amax(1)
    if name == "cross_entropy":
        return -log_p.gather(1, column).squeeze(1)
    wrong = p.scatter(1, column, -torch.inf).amax(1)
    return wrong - p.gather(1, column).squeeze(1)


def reference(
    logits: Tensor,
    labels: Tensor,
    labels_b: Tensor,
    lam: Tensor,
    label_smoothing: float,
    score: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the op in plain PyTorch: loss, entropy, score, and dlogits = p - target."""
    classes = logits.shape[1]
    z = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
    log_p = z.log_softmax(1)
    p = log_p.exp()
    column_a, poison_a = _label_column(labels, classes, z.dtype)
    column_b, poison_b = _label_column(labels_b, classes, z.dtype)
    lam = lam.to(z.dtype)
    target = torch.full_like(z, label_smoothing / classes)
    keep = (1 - label_smoothing) * torch.ones_like(column_a, dtype=z.dtype)
    target = target.scatter_add(1, column_a, keep * lam).scatter_add(1, column_b, keep * (1 - lam))
    target = target + (poison_a + poison_b)
    # 0 * -inf: a class that is not in the target costs nothing, however unlikely.
    loss = -(target * log_p).masked_fill(target == 0, 0).sum(1)
    entropy = -(p * log_p).masked_fill(p == 0, 0).sum(1)
    uncertainty = _score(score, log_p, p, entropy, column_a)
    if score in ("cross_entropy", "margin"):
        uncertainty = uncertainty + poison_a.squeeze(1)
    return loss, entropy, uncertainty, (p - target).to(logits.dtype)


def _fake(
    logits: Tensor,
    labels: Tensor,
    labels_b: Tensor,
    lam: Tensor,
    label_smoothing: float,
    score: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    loss, entropy, uncertainty = (logits.new_empty(logits.shape[0], dtype=dtype) for _ in range(3))
    return loss, entropy, uncertainty, logits.new_empty(logits.shape)


def reference_op(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Run `reference` below autograd, with the strides that the schema promises."""
    *per_sample, dlogits = reference(*arguments)
    return (*per_sample, dlogits.contiguous())  # type: ignore[return-value]


OP, REFERENCE_OP = define(SCHEMA, check, reference_op, _fake)


class _LossAndEntropy(Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, labels_b: Tensor | None, *rest: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Only here: Dynamo refuses a Function that is given one tensor twice.
        partner = labels if labels_b is None else labels_b
        loss, entropy, uncertainty, dlogits = OP(logits, labels, partner, *rest)
        ctx.save_for_backward(dlogits, logits, labels, partner, rest[0])
        ctx.settings = rest[1:]
        ctx.mark_non_differentiable(entropy, uncertainty)
        if not torch.compiler.is_compiling():
            ctx.set_materialize_grads(False)  # no zeros for entropy and score
        return loss, entropy, uncertainty

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, *grad_of_scores: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        dlogits, *inputs = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            dlogits = reference(*inputs, *ctx.settings)[3]
        return (grad.unsqueeze(1) * dlogits).to(dlogits.dtype), *[None] * 5


_APPLY: Callable[..., tuple[Tensor, Tensor, Tensor]] = _LossAndEntropy.apply


def loss_and_entropy(
    logits: Tensor,
    labels: Tensor,
    labels_b: Tensor | None = None,
    lam: Tensor | None = None,
    label_smoothing: float = 0.0,
    score: str = "entropy",
) -> LossAndEntropy:
    """Compute per-sample cross-entropy, entropy and selection score (docs/algorithm.md, (2)).

    `loss = lam*CE(labels) + (1 - lam)*CE(labels_b)`, the MixUp loss; `entropy = -sum p log p` in
    nats. Only `loss` carries a gradient; accumulation is in float32 for bf16 and fp16 logits.

    Args:
        logits: [B, K], floating.
        labels: int64 [B] in `[0, K)`. A label outside makes its row's loss and gradient NaN.
        labels_b: the MixUp partner's labels, or None for the plain loss.
        lam: 0-dim tensor on the logits' device, or None for 1.
        label_smoothing: as in `F.cross_entropy`, 0 to 1.
        score: "entropy", "confidence" (-max p), "cross_entropy" (to `labels`, unsmoothed) or
            "margin" (largest wrong probability minus the true one); higher is selected first.

    Raises:
        ValueError: a shape, dtype, device, smoothing or score that does not fit.
    """
    if lam is None:
        lam = logits.new_ones((), dtype=torch.float32)
    if uses_kernels(logits):
        return LossAndEntropy(*_APPLY(logits, labels, labels_b, lam, label_smoothing, score))
    partner = labels if labels_b is None else labels_b
    arguments = (logits, labels, partner, lam, label_smoothing, score)
    check(*arguments)
    loss, entropy, uncertainty, _ = reference(*arguments)
    return LossAndEntropy(loss, entropy.detach(), uncertainty.detach())

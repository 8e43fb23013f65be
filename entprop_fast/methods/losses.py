"""Take the per-sample loss of a pass: the fused cross-entropy, or a criterion of others.

A criterion is a module ``(logits, labels) -> per-sample loss [B]``. Label smoothing, in [0, 1], is
that of the cross-entropy.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast import reference
from entprop_fast.methods.targets import Targets
from entprop_fast.ops import LossAndEntropy, loss_and_entropy


def evaluate(
    logits: Tensor,
    targets: Targets,
    score: str,
    *,
    criterion: nn.Module | None,
    label_smoothing: float,
) -> LossAndEntropy:
    """Return per-sample loss (2), which alone carries a gradient, entropy and `score`, each [B].

    Args:
        logits: [B, classes].
        targets: of the rows.
        score: one that `reference.uncertainty` knows.
        criterion: in place of cross-entropy, or None.
        label_smoothing: 0 with a criterion.

    Raises:
        ValueError: the criterion's loss is not one per sample.
    """
    labels, labels_b, lam = targets
    if criterion is None and (lam is None or lam.ndim == 0):
        partners = None if lam is None else labels_b
        return loss_and_entropy(logits, labels, partners, lam, label_smoothing, score)
    logits = reference.full_precision(logits)
    losses = _of_one_label(logits, labels, criterion, label_smoothing)
    if lam is not None:
        others = _of_one_label(logits, labels_b, criterion, label_smoothing)
        losses = reference.mixed_loss(losses, others, lam)
    fixed = logits.detach()
    entropy = reference.entropy(fixed)
    return LossAndEntropy(losses, entropy, reference.uncertainty(fixed, labels, score))


def _of_one_label(
    logits: Tensor, labels: Tensor, criterion: nn.Module | None, label_smoothing: float
) -> Tensor:
    if criterion is None:
        return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
    # Copies: one that shifts logits in place (a margin) must not shift the scores, nor the next.
    losses: Tensor = criterion(logits.clone(), labels.clone())
    if losses.shape != labels.shape:
        raise ValueError(
            f"criterion gave a loss of shape {tuple(losses.shape)}: expected one per sample, "
            f"{tuple(labels.shape)} (reduction='none')"
        )
    return losses

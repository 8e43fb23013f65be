"""The rows of a pass: images and the labels that their loss is taken against."""

from typing import NamedTuple

import torch
from torch import Tensor

from entprop_fast import reference
from entprop_fast.distributed import gather_rows


class Batch(NamedTuple):
    """Rows of a pass.

    Attributes:
        images: [B, C, H, W].
        labels: the original labels [B] (y_a of mixed rows).
        labels_b: the partners' labels [B] of mixed rows, else `labels`.
        lam: share of `labels` in mixed rows, 0-dim or [B]; None where nothing is mixed.
    """

    images: Tensor
    labels: Tensor
    labels_b: Tensor
    lam: Tensor | None

    def rows(self, index: Tensor) -> "Batch":
        """The rows at `index`, int64 [m]."""
        lam = self.lam if self.lam is None or self.lam.ndim == 0 else self.lam[index]
        return Batch(self.images[index], self.labels[index], self.labels_b[index], lam)

    def of_all_processes(self) -> "Batch":
        """The rows of every process; each keeps the lam that it was mixed with."""
        lam = self.lam if self.lam is None else gather_rows(self.lam.expand(len(self.labels)))
        images, labels, labels_b = (
            gather_rows(t) for t in (self.images, self.labels, self.labels_b)
        )
        return Batch(images, labels, labels_b, lam)

    def unmixed(self) -> "Batch":
        """The same images against their original labels alone."""
        return Batch(self.images, self.labels, self.labels, None)


def mixup(images: Tensor, labels: Tensor, beta: float, generator: torch.Generator | None) -> Batch:
    """MixUp of a whole batch (1); ``beta=0`` mixes and draws nothing.

    Args:
        images: [B, C, H, W], left as they are.
        labels: [B].
        beta: lam ~ Beta(beta, beta), one for the batch.
        generator: on the images' device; draws lam, then the permutation.

    Raises:
        ValueError: a batch of one row has no partner.
    """
    if beta == 0:
        return Batch(images.detach(), labels, labels, None)
    if len(images) < 2:
        raise ValueError(f"a batch of B={len(images)}: mixup={beta:g} needs at least 2 rows to mix")
    lam = reference.draw_lam(beta, images, generator)
    partners = reference.draw_partners(images, generator)
    return Batch(reference.mix(images.detach(), partners, lam), labels, labels[partners], lam)

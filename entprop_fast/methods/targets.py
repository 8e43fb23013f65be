"""Hold what the loss of a pass is taken against; MixUp and CutMix mix it with the images."""

from typing import NamedTuple

import torch
from torch import Tensor

from entprop_fast import reference
from entprop_fast.parallel.rows import gather_rows


class Targets(NamedTuple):
    """Hold the labels of a pass's rows.

    Attributes:
        labels: the original labels [B], int64 (y_a of mixed rows).
        labels_b: the partners' labels [B] of mixed rows, else `labels`.
        lam: share of `labels` in mixed rows, 0-dim or [B]; None where nothing is mixed.
    """

    labels: Tensor
    labels_b: Tensor
    lam: Tensor | None

    @classmethod
    def unmixed(cls, labels: Tensor) -> "Targets":
        """Return labels [B] of rows that are not mixed."""
        return cls(labels, labels, None)

    def rows(self, index: Tensor) -> "Targets":
        """Return those at `index`, int64 [m]."""
        lam = self.lam if self.lam is None or self.lam.ndim == 0 else self.lam[index]
        return Targets(self.labels[index], self.labels_b[index], lam)

    def of_all_processes(self, held: list[int]) -> "Targets":
        """Gather every process's rows, so many each; each keeps the lam that it was mixed with."""
        lam = self.lam
        if lam is not None:
            lam = gather_rows(lam.expand(len(self.labels)), held)
        return Targets(gather_rows(self.labels, held), gather_rows(self.labels_b, held), lam)


def mixup(
    images: Tensor, labels: Tensor, beta: float, generator: torch.Generator | None
) -> tuple[Tensor, Targets]:
    """Mix a whole batch as MixUp does (1); ``beta=0`` mixes and draws nothing.

    Args:
        images: [B, C, H, W], left as they are.
        labels: [B].
        beta: lam ~ Beta(beta, beta), one for the batch.
        generator: on the images' device; draws lam, then the permutation.

    Returns:
        The mixed images, without a gradient, and what their loss is taken against.

    Raises:
        ValueError: a batch of one row has no partner.
    """
    if beta == 0:
        return images.detach(), Targets.unmixed(labels)
    lam, partners = _draw("mixup", beta, images, generator)
    return reference.mix(images.detach(), partners, lam), Targets(labels, labels[partners], lam)


def cutmix(
    images: Tensor, labels: Tensor, beta: float, generator: torch.Generator | None
) -> tuple[Tensor, Targets]:
    """Mix a whole batch as CutMix does (8), with the arguments and results of `mixup`.

    The generator draws lam, the permutation, then the box's centre; the share of `labels` is what
    the box leaves of the own image.

    Raises:
        ValueError: a batch of one row has no partner.
    """
    if beta == 0:
        return images.detach(), Targets.unmixed(labels)
    lam, partners = _draw("cutmix", beta, images, generator)
    box = reference.draw_box(lam, images, generator)
    mixed, share = reference.paste(images.detach(), partners, box)
    return mixed, Targets(labels, labels[partners], share)


def mixed(
    images: Tensor,
    labels: Tensor,
    mixup_beta: float,
    cutmix_beta: float,
    generator: torch.Generator | None,
) -> tuple[Tensor, Targets]:
    """Mix a batch by `mixup` (1), or in its place by `cutmix` (8)."""
    if cutmix_beta:
        return cutmix(images, labels, cutmix_beta, generator)
    return mixup(images, labels, mixup_beta, generator)


def aux_targets(targets: Targets, index: Tensor, aux_labels: str) -> Targets:
    """Return the auxiliary loss's targets of the rows at `index`: "original" labels or "mixed"."""
    chosen = targets.rows(index)
    return Targets.unmixed(chosen.labels) if aux_labels == "original" else chosen


def _draw(
    name: str, beta: float, images: Tensor, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw lam and the permutation of a batch that the option `name` mixes."""
    if len(images) < 2:
        raise ValueError(
            f"a batch of B={len(images)}: {name}={beta:g} needs at least 2 rows to mix"
        )
    return reference.draw_lam(beta, images, generator), reference.draw_partners(images, generator)

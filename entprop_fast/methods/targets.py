"""Hold what the loss of a pass is taken against; MixUp and CutMix mix it with the images."""

from typing import NamedTuple

import torch
from torch import Tensor

from entprop_fast import reference
from entprop_fast.parallel.dealt_rows import DealtRows


class Targets(NamedTuple):
    """Hold the labels of a pass's rows.

    Attributes:
        labels: the original labels [B], int64 (y_a of mixed rows).
        labels_b: the partners' labels [B] of mixed rows, else `labels`.
        lam: share of `labels` in mixed rows, 0-dim or [B]; None where nothing is mixed.
        dealt: how the pass's rows are dealt out over the processes; None where all are here.
    """

    labels: Tensor
    labels_b: Tensor
    lam: Tensor | None
    dealt: DealtRows | None = None

    @classmethod
    def unmixed(cls, labels: Tensor, dealt: DealtRows | None = None) -> "Targets":
        """Return labels [B] of rows that are not mixed."""
        return cls(labels, labels, None, dealt)

    def mean(self, of_rows: Tensor) -> Tensor:
        """Return the mean over the pass's rows, or this process's share in that over all."""
        return of_rows.mean() if self.dealt is None else self.dealt.mean(of_rows)

    def mean_of_all(self, of_rows: Tensor) -> Tensor:
        """Return the mean over the pass's rows, those of other processes with them."""
        return of_rows.mean() if self.dealt is None else self.dealt.mean_of_all(of_rows)

    def rows(self, index: Tensor) -> "Targets":
        """Return those at `index`, int64 [m]."""
        lam = self.lam if self.lam is None or self.lam.ndim == 0 else self.lam[index]
        return Targets(self.labels[index], self.labels_b[index], lam, self.dealt)


def mixup(
    images: Tensor,
    labels: Tensor,
    beta: float,
    generator: torch.Generator | None,
    dealt: DealtRows | None = None,
) -> tuple[Tensor, Targets]:
    """Mix a whole batch as MixUp does (1); ``beta=0`` mixes and draws nothing.

    Args:
        images: [B, C, H, W], left as they are.
        labels: [B].
        beta: lam ~ Beta(beta, beta), one for the batch.
        generator: on the images' device; draws lam, then the permutation.
        dealt: how the batch is dealt out over the processes, whose rows mix with each other.

    Returns:
        The mixed images, without a gradient, and what their loss is taken against.

    Raises:
        ValueError: a batch of one row has no partner.
    """
    x, dealt = images.detach(), DealtRows(len(images)) if dealt is None else dealt
    if beta == 0:
        return x, Targets.unmixed(labels, dealt)
    among, lam, partners = _draw("mixup", beta, x, generator, dealt)
    labels_b = dealt.gather(labels)[partners]
    return reference.mix(x, partners, lam, among), Targets(labels, labels_b, lam, dealt)


def cutmix(
    images: Tensor,
    labels: Tensor,
    beta: float,
    generator: torch.Generator | None,
    dealt: DealtRows | None = None,
) -> tuple[Tensor, Targets]:
    """Mix a whole batch as CutMix does (8), with the arguments and results of `mixup`.

    The generator draws lam, the permutation, then the box's centre; the share of `labels` is what
    the box leaves of the own image.

    Raises:
        ValueError: a batch of one row has no partner.
    """
    x, dealt = images.detach(), DealtRows(len(images)) if dealt is None else dealt
    if beta == 0:
        return x, Targets.unmixed(labels, dealt)
    among, lam, partners = _draw("cutmix", beta, x, generator, dealt)
    box = reference.draw_box(lam, x, generator)
    mixed, share = reference.paste(x, partners, box, among)
    return mixed, Targets(labels, dealt.gather(labels)[partners], share, dealt)


def mixed(
    images: Tensor,
    labels: Tensor,
    mixup_beta: float,
    cutmix_beta: float,
    generator: torch.Generator | None,
    dealt: DealtRows | None = None,
) -> tuple[Tensor, Targets]:
    """Mix a batch by `mixup` (1), or in its place by `cutmix` (8)."""
    if cutmix_beta:
        return cutmix(images, labels, cutmix_beta, generator, dealt)
    return mixup(images, labels, mixup_beta, generator, dealt)


def aux_targets(chosen: Targets, aux_labels: str) -> Targets:
    """Return the auxiliary loss's targets of the chosen rows: "original" labels or "mixed"."""
    original = aux_labels == "original"
    return Targets.unmixed(chosen.labels, chosen.dealt) if original else chosen


def _draw(
    name: str, beta: float, x: Tensor, generator: torch.Generator | None, dealt: DealtRows
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw as `draw_mixing`; return the rows of all processes, too, first."""
    among = dealt.gather(x)
    return among, *draw_mixing(name, beta, x, among, generator, dealt)


def draw_mixing(
    name: str,
    beta: float,
    x: Tensor,
    among: Tensor,
    generator: torch.Generator | None,
    dealt: DealtRows,
) -> tuple[Tensor, Tensor]:
    """Draw lam and the permutation of a batch that the option `name` mixes.

    Args:
        name: of the option.
        beta: lam ~ Beta(beta, beta).
        x: images, of which device and dtype lam is.
        among: something of the rows of all processes.
        generator: draws lam, then the permutation.
        dealt: how the rows are dealt out.

    Returns:
        Lam, and which rows of all processes are the partners of this process's.

    Raises:
        ValueError: a batch of one row has no partner.
    """
    if dealt.total < 2:
        raise ValueError(
            f"a batch of B={dealt.total}: {name}={beta:g} needs at least 2 rows to mix"
        )
    lam = reference.draw_lam(beta, x, generator)
    return lam, dealt.share(reference.draw_partners(among, generator))

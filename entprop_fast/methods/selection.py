"""Select the rows of highest score (4), among those of a process or of all."""

import math

import torch
from torch import Tensor

from entprop_fast.methods.passes import MainPass
from entprop_fast.methods.targets import Targets
from entprop_fast.ops import select_topk
from entprop_fast.parallel.agreement import Agreement
from entprop_fast.parallel.rows import gather_rows, own_share

Entropies = tuple[Tensor, Tensor]  # means over the selected rows and over the others


def select(main: MainPass, m: int, dealt: list[int] | None = None) -> tuple[Tensor, Entropies]:
    """Select the m rows of highest score (4).

    Args:
        main: the main pass.
        m: how many rows this process selects.
        dealt: how many each process does, where `main` holds the rows of all.

    Returns:
        The index of the rows, [m], and the mean entropies of all selected rows and of the others.
    """
    if dealt is None:
        index = ranking = select_topk(main.score, m)
    else:
        ranking = select_topk(main.score, sum(dealt))
        index = own_share(ranking, dealt)
    selected = torch.zeros_like(main.entropy).index_fill_(0, ranking, 1.0)
    return index, (_mean(main.entropy, selected), _mean(main.entropy, 1 - selected))


def unselected(main: MainPass) -> Entropies:
    """Return the entropies of a step that selects nothing."""
    return torch.full_like(main.loss, math.nan), main.entropy.mean()


def gather_candidates(
    agreement: Agreement, x: Tensor, gradient: Tensor, main: MainPass, targets: Targets, m: int
) -> tuple[Tensor, Tensor, MainPass, Targets, list[int]]:
    """Gather the rows of all processes, in the order of the ranks, for one selection among them.

    Args:
        agreement: of the method; how many rows there are may differ, all else has to be alike.
        x: the images of this process.
        gradient: of the images.
        main: the main pass; its loss and count stay those of this process.
        targets: of the rows.
        m: how many rows this process selects.

    Returns:
        Images, gradient, main pass and targets of all rows, and how many each process selects.
    """
    tensors = (x, main.logits, main.score)
    same = [(t.dtype, tuple(t.shape[1:])) for t in tensors], targets.lam is None
    found = agreement.agree("selection='global'", same, (len(x), m))
    held, dealt = [rows for rows, _ in found], [selected for _, selected in found]
    main = main._replace(
        entropy=gather_rows(main.entropy, held),
        score=gather_rows(main.score, held),
        logits=gather_rows(main.logits, held),
    )
    x, gradient = gather_rows(x, held), gather_rows(gradient, held)
    return x, gradient, main, targets.of_all_processes(held), dealt


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of the values of weight 1, NaN without any; others may be NaN themselves."""
    return torch.where(weights > 0, values, 0).sum() / weights.sum()

"""Select the rows of highest score (4), among those of a process or of all."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from entprop_fast.methods.passes import MainPass
from entprop_fast.methods.targets import Targets
from entprop_fast.ops import select_topk
from entprop_fast.parallel.dealt_rows import DealtRows, RowsOfAll

Entropies = tuple[Tensor, Tensor]  # means over the selected rows and over the others


class Chosen(NamedTuple):
    """Hold the rows that a step chose to perturb, and what it knows of them.

    Attributes:
        numbers: their numbers in the batch, int64 [m]; in that of all processes where these choose
            together.
        at: [m], where they lie in the following three.
        x: images.
        gradient: of the images, or None where nobody asked for it.
        logits: of the main pass, or None where nobody asked for them.
        targets: of the chosen rows.
        entropies: of all selected rows and of the others.
    """

    numbers: Tensor
    at: Tensor
    x: Tensor
    gradient: Tensor | None
    logits: Tensor | None
    targets: Targets
    entropies: Entropies


def choose(
    main: MainPass,
    m: int,
    x: Tensor,
    targets: Targets,
    among: RowsOfAll,
    *,
    logits: bool = False,
) -> Chosen:
    """Choose the m rows of highest score (4).

    Args:
        main: the main pass.
        m: how many rows are chosen among those of `among`.
        x: the images.
        targets: of the rows.
        among: the rows of this process or of all, among which these choose. Chosen rows are dealt
            out one at a time, and travel there.
        logits: return those of the chosen rows.
    """
    fixed = main.logits if logits else None
    if among.alone:
        index = select_topk(main.score, m)
        entropies = _means(main.entropy, index)
        return Chosen(index, index, x, main.gradient, fixed, targets.rows(index), entropies)
    entropy, score = among.gather(torch.stack((main.entropy, main.score), dim=1)).unbind(1)
    ranking = select_topk(score.contiguous(), m)
    lam, dealt = targets.lam, None
    if isinstance(among, DealtRows):
        dealt = among.first(m)
    elif lam is not None:  # each process mixed its rows with a lam of its own
        lam = lam.expand(len(x))
    labels, labels_b, lam, x, gradient, fixed = _brought(
        among, ranking, (targets.labels, targets.labels_b, lam, x, main.gradient, fixed)
    )
    index = among.share(ranking)
    at = torch.arange(len(index), device=x.device)
    chosen = Targets(labels, labels_b, lam, dealt)
    return Chosen(index, at, x, gradient, fixed, chosen, _means(entropy, ranking))


def take_last(
    main: MainPass, x: Tensor, targets: Targets, last: DealtRows, entropies: Entropies
) -> Chosen:
    """Choose the last rows of a batch, or all, where they lie; nothing is selected."""
    at = torch.arange(len(x) - last.held, len(x), device=x.device)
    index = at if targets.dealt is None else targets.dealt.numbers(at)
    chosen = targets.rows(at)._replace(dealt=last)
    return Chosen(index, at, x, None, main.logits, chosen, entropies)


def unselected(main: MainPass, targets: Targets) -> Entropies:
    """Return the entropies of a step that selects nothing."""
    return torch.full_like(main.loss, math.nan), targets.mean_of_all(main.entropy)


def _brought(among: RowsOfAll, ranking: Tensor, values: tuple[Tensor | None, ...]) -> list[Any]:
    """Return the values of this process's share of a ranking; those of no row stay."""
    travel = [i for i, value in enumerate(values) if value is not None and value.ndim]
    brought: list[Any] = list(values)
    for i, value in zip(travel, among.bring(ranking, [brought[i] for i in travel]), strict=True):
        brought[i] = value
    return brought


def _means(entropy: Tensor, selected: Tensor) -> Entropies:
    """Return the means over the selected rows and over the others."""
    weights = torch.zeros_like(entropy).index_fill_(0, selected, 1.0)
    return _mean(entropy, weights), _mean(entropy, 1 - weights)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of the values of weight 1, NaN without any; others may be NaN themselves."""
    return torch.where(weights > 0, values, 0).sum() / weights.sum()

"""Take the passes of a step that the weights learn from: (2), (3) and the last of (5)."""

import contextlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from entprop_fast import reference
from entprop_fast.methods.network import Network
from entprop_fast.methods.targets import Targets
from entprop_fast.ops import LossAndEntropy
from entprop_fast.ops.loss_and_entropy import SCORES as KERNEL_SCORES


class StepResult(NamedTuple):
    """Report one step: detached 0-dim tensors on the device, that no later step overwrites.

    There is no loss to call ``backward()`` on: a step has several passes, each with a backward
    pass of its own, and the images' gradients of one are what the next is made from. In a loop that
    calls ``loss.backward()`` itself (Lightning, Hugging Face's `Trainer`, accelerate, timm's and
    torchvision's scripts), `Method.backward` takes the place of forward, loss and that line:

        result = method.backward(images, labels)  # was: loss.backward()
        optimizer.step()  # clipping, schedule and zero_grad() are as they were

    and ``result.loss`` is for the log. docs/how-to has each of these loops in 40 lines.

    Of several processes each has the values of its own rows; with ``selection="global"`` the
    entropies are those of all rows. With ``ranks="exact"`` the sum over the processes of `loss`,
    `aux_loss` and `correct` is the one process's value, and each has the entropies of all rows.

    Attributes:
        loss: mean loss of the main pass.
        aux_loss: unweighted mean loss of the last auxiliary pass; 0 without one.
        correct: rows of the main pass whose prediction is their original label.
        entropy_selected: mean prediction entropy (nats) of the selected rows; NaN without any.
        entropy_unselected: the same of the others.
    """

    loss: Tensor
    aux_loss: Tensor
    correct: Tensor
    entropy_selected: Tensor
    entropy_unselected: Tensor


class MainPass(NamedTuple):
    """Hold what the main pass leaves, detached.

    Attributes:
        loss: mean over the rows, or this process's share in it.
        correct: rows predicted as their original label.
        entropy: [B].
        score: [B], which the selection ranks.
        logits: [B, classes].
        gradient: of the images (3), [B, C, H, W], or None where nobody asked for it.
    """

    loss: Tensor
    correct: Tensor
    entropy: Tensor
    score: Tensor
    logits: Tensor
    gradient: Tensor | None


def main_pass(
    net: Network,
    x: Tensor,
    targets: Targets,
    *,
    score: str = "entropy",
    generator: torch.Generator | None = None,
    weight: float = 1.0,
    gradient: bool = False,
    jsd: float = 0.0,
) -> MainPass:
    """Take the main pass and its backward pass, (2) and (3).

    Args:
        net: the network.
        x: images [B, C, H, W]; with `jsd` three views, [3 * B, C, H, W].
        targets: of the rows.
        score: one of `reference.SCORES`.
        generator: the random score draws from it.
        weight: of the mean loss.
        gradient: ask for that of the images, of their first views.
        jsd: weight of what keeps three views of a row alike (17); all results are of the first.
    """
    x, batch = x.detach(), len(targets.labels)
    first = x[:batch].requires_grad_(gradient)
    rows = torch.cat((first, x[batch:])) if jsd else first
    with net.along("main"):
        logits = net.forward(rows, targets.labels, own=bool(jsd))
        found = scored_losses(net, logits[:batch], targets, score, logits, jsd)
        # Backward inside the route, so that a checkpointed forward is computed along it again.
        net.go_back(net.objective(found.loss, targets, weight))
    return main_results(net, logits[:batch], targets, found, first.grad, score, generator)


def scored_losses(
    net: Network,
    logits: Tensor,
    targets: Targets,
    score: str = "entropy",
    views: Tensor | None = None,
    jsd: float = 0.0,
) -> LossAndEntropy:
    """Return `Network.losses` with the score, where one read of the logits gives both.

    Args:
        net: the network.
        logits: [B, classes].
        targets: of the rows.
        score: one of `reference.SCORES`.
        views: logits of the rows' three views, [3 * B, classes], the first of which are `logits`.
        jsd: weight of their distance in each row's loss (17).
    """
    found = net.losses(logits, targets, score if score in KERNEL_SCORES else "entropy")
    if views is None or not jsd:
        return found
    return found._replace(loss=found.loss + jsd * reference.jensen_shannon(views))


def main_results(
    net: Network,
    logits: Tensor,
    targets: Targets,
    found: LossAndEntropy,
    gradient: Tensor | None,
    score: str,
    generator: torch.Generator | None,
) -> MainPass:
    """Return what a main pass leaves, with the scores that no kernel computes."""
    fixed, values = logits.detach(), found.score
    if score == "random":  # one draw for the rows of all processes
        full = reference.full_precision(fixed)
        values = net.dealt.share(reference.draw_scores(net.dealt.total, full, generator))
    elif score not in KERNEL_SCORES:
        values = reference.uncertainty(fixed, targets.labels, score)
    correct = (fixed.argmax(dim=1) == targets.labels).sum()
    loss = targets.mean(found.loss.detach())
    return MainPass(loss, correct, found.entropy, values, fixed, gradient)


def learn(
    net: Network,
    x: Tensor,
    targets: Targets,
    weight: float,
    *,
    own: bool = False,
    last: bool = False,
) -> Tensor:
    """Take a pass along the current route, and its backward pass; return the mean loss.

    Args:
        net: the network.
        x: images [B, C, H, W].
        targets: of the rows.
        weight: of the mean loss.
        own: the model may write into `x`.
        last: no other backward pass of the step follows.
    """
    of_rows = net.losses(net.forward(x, targets.labels, own=own), targets).loss
    with net.last_pass() if last else contextlib.nullcontext():
        net.go_back(net.objective(of_rows, targets, weight))
    return targets.mean(of_rows.detach())


def only_pass(net: Network, x: Tensor, targets: Targets, *, jsd: float = 0.0) -> StepResult:
    """Take the only pass of a step, which selects nothing, and report it.

    Args:
        net: the network.
        x: images [B, C, H, W]; with `jsd` three views, [3 * B, C, H, W].
        targets: of the rows.
        jsd: weight of what keeps three views of a row alike (17); all results are of the first.
    """
    views = net.forward(x, targets.labels, own=targets.lam is not None)
    logits = views[: len(targets.labels)]
    of_rows, entropy, _ = scored_losses(net, logits, targets, views=views, jsd=jsd)
    loss = targets.mean(of_rows)
    with net.last_pass():
        net.go_back(loss if net.weight == 1 else net.weight * loss)
    return StepResult(
        loss=loss.detach(),
        aux_loss=torch.zeros_like(loss),
        correct=(logits.detach().argmax(dim=1) == targets.labels).sum(),
        entropy_selected=torch.full_like(loss, math.nan),
        entropy_unselected=targets.mean_of_all(entropy),
    )

"""Compute EntProp in plain PyTorch: oracle of the tests, baseline of the benches, fallback.

Every formula of the paper (Enomoto, UAI 2024) and of the methods beside it stands here once, in the
order in which a step needs it; `entprop_step` puts the paper's together without checks,
`entprop_pipelined_step` ours. The random numbers are drawn in `entprop_fast.draws`. Numbers in
brackets are the equations of docs/algorithm.md.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast.devices import widest_float
from entprop_fast.draws import draw_box as draw_box
from entprop_fast.draws import draw_lam as draw_lam
from entprop_fast.draws import draw_partners as draw_partners
from entprop_fast.draws import draw_scores as draw_scores
from entprop_fast.draws import draw_start as draw_start
from entprop_fast.layers.routing import dual_layers, frozen_statistics, route

Waiting = tuple[Tensor, Tensor]  # rows for the next pipelined step, images and labels
ATTACK_LOSSES = ("ce", "cw", "trades")


def mix(images: Tensor, partners: Tensor, lam: Tensor, among: Tensor | None = None) -> Tensor:
    """Mix as MixUp does (1): ``lam * x + (1 - lam) * x[partners]``, [B, C, H, W].

    The partners are rows `among` others where those are given.
    """
    return lam * images + (1 - lam) * (images if among is None else among)[partners]


def paste(
    images: Tensor, partners: Tensor, box: Tensor, among: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Paste as CutMix does (8); return the images and the share of the own pixels."""
    share = 1 - box.to(widest_float(images.device)).mean()
    pasted = (images if among is None else among)[partners]
    return torch.where(box, pasted, images), share.to(images.dtype)


def mixed_loss(loss_a: Tensor, loss_b: Tensor, lam: Tensor) -> Tensor:
    """Return the two-label loss of mixed rows, ``lam * CE(y_a) + (1 - lam) * CE(y_b)``, [B] (2)."""
    return lam * loss_a + (1 - lam) * loss_b


def full_precision(logits: Tensor) -> Tensor:
    """Return logits in float32, or float64 as they are: no loss or score is in half precision."""
    return logits if logits.dtype == torch.float64 else logits.float()


def entropy(logits: Tensor) -> Tensor:
    """Return the prediction entropy H = -sum_c p_c log p_c in nats, [B, classes] -> [B] (2)."""
    log_p = F.log_softmax(full_precision(logits), dim=1)
    # p log p -> 0 as p -> 0, where log p alone would be -inf.
    return -torch.where(log_p == -math.inf, 0, log_p.exp() * log_p).sum(dim=1)


def uncertainty(
    logits: Tensor, labels: Tensor, score: str, generator: torch.Generator | None = None
) -> Tensor:
    """Return how uncertain each prediction is, [B, classes] -> [B]; the step selects the highest.

    Args:
        logits: [B, classes].
        labels: [B], int64, the original labels.
        score: one of `SCORES`.
        generator: on the device of `logits`; the random score draws from it.
    """
    return SCORES[score](full_precision(logits), labels, generator)


def _wrong_minus_true(values: Tensor, labels: Tensor) -> Tensor:
    """Return the largest value of a wrong class minus the true one's, [B, classes] -> [B]."""
    true = labels[:, None]
    return values.scatter(1, true, -math.inf).amax(dim=1) - values.gather(1, true)[:, 0]


# What selects, from logits of full precision, labels and a generator; a new score is one entry.
# Energy and gini go beyond the paper's ablation.
SCORES: dict[str, Callable[[Tensor, Tensor, torch.Generator | None], Tensor]] = {
    "entropy": lambda z, y, g: entropy(z),
    "confidence": lambda z, y, g: -z.softmax(dim=1).amax(dim=1),  # minus the largest probability
    "cross_entropy": lambda z, y, g: F.cross_entropy(z, y, reduction="none"),
    # The largest wrong probability minus the true one.
    "margin": lambda z, y, g: _wrong_minus_true(z.softmax(dim=1), y),
    "energy": lambda z, y, g: -z.logsumexp(dim=1),  # -log sum_c exp z_c
    "gini": lambda z, y, g: 1 - z.softmax(dim=1).square().sum(dim=1),  # 1 - sum_c p_c^2
    "random": lambda z, y, g: draw_scores(len(z), z, g),
}


def num_selected(k: float, batch: int) -> int:
    """Count the selected rows of a batch: ``m = max(1, floor(k * B + 0.5))``, in float64 (4)."""
    return max(1, math.floor(k * batch + 0.5))


def select_topk(score: Tensor, m: int) -> Tensor:
    """Return the indices of the `m` highest scores, [B] -> [m] (4).

    In descending order of score, ties to the lower index, NaN first.
    """
    return torch.sort(score, descending=True, stable=True).indices[:m]


def perturb(
    x_a: Tensor,
    gradient: Tensor,
    x_0: Tensor,
    *,
    alpha: Tensor | float,
    eps: Tensor | float,
    low: Tensor | float,
    high: Tensor | float,
) -> Tensor:
    """Step along the gradient's sign, within eps of x_0 and within the image range (5).

    ``clip(x_0 + clip(x_a - x_0 + alpha * sign(g), -eps, eps), low, high)``, with alpha, eps, low
    and high in the units of the images, scalars or broadcast over [B, C, H, W].
    """
    return displace(x_0, step_offset(x_a - x_0, gradient, alpha, eps), low, high)


def displace(images: Tensor, offset: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Move images by an offset, within the image range: ``clip(x + offset, low, high)`` (9)."""
    return (images + offset).clamp(_bound(low, images), _bound(high, images))


def _bound(value: Tensor | float, like: Tensor) -> Tensor:
    """Return a bound in the images' dtype; a number is filled in where they lie, not copied."""
    if isinstance(value, Tensor):
        return value.to(like.device, like.dtype)
    return torch.full((), value, dtype=like.dtype, device=like.device)


def step_offset(
    offset: Tensor, gradient: Tensor, alpha: Tensor | float, eps: Tensor | float
) -> Tensor:
    """Take free training's step: ``clip(offset + alpha * sign(g), -eps, eps)`` (12)."""
    radius = _bound(eps, offset)
    return (offset + alpha * gradient.sign()).clamp(-radius, radius)


def cw_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return C&W's loss: the largest wrong logit minus the true one, [B, classes] -> [B] (10)."""
    return _wrong_minus_true(full_precision(logits), labels)


def trades_loss(logits: Tensor, clean: Tensor) -> Tensor:
    """Return TRADES' KL(p(clean) || p) in nats, both logits [B, classes] -> [B] (11)."""
    log_p, log_clean = (full_precision(z).log_softmax(dim=1) for z in (logits, clean))
    p = log_clean.exp()
    # p log p -> 0 as p -> 0, where log p alone would be -inf.
    return torch.where(p == 0, 0, p * (log_clean - log_p)).sum(dim=1)


def jensen_shannon(logits: Tensor) -> Tensor:
    """Return how far a row's three views are apart, as AugMix has it, [3 * B, classes] -> [B] (17).

    The mean over the views of KL(p_view || M), M their mean, clamped to [1e-7, 1], in nats.
    """
    log_p = full_precision(logits).log_softmax(dim=1)
    log_p = log_p.view(3, len(logits) // 3, logits.shape[1])
    p = log_p.exp()
    log_m = p.mean(dim=0).clamp(1e-7, 1).log()
    # p log p -> 0 as p -> 0, where log p alone would be -inf.
    return torch.where(p == 0, 0, p * (log_p - log_m)).sum(dim=2).mean(dim=0)


def sparse_normal(normal: Tensor, unit: Tensor, sparsity: float) -> Tensor:
    """Return normal noise with a share of zeros, where `unit`, uniform in [0, 1), says so (19)."""
    return torch.where(unit < sparsity, 0, normal)


def sparse_uniform(unit: Tensor, sparsity: float) -> Tensor:
    """Return noise uniform in +-1 with a share of zeros, both from `unit` (19)."""
    spread = 2 * (unit - sparsity) / (1 - sparsity) - 1  # uniform where it is not below
    return torch.where(unit < sparsity, 0, spread)


def entprop_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    *,
    k: float = 0.2,
    n: int = 1,
    alpha: float = 1 / 255,
    eps: float | None = None,
    mixup: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Take one step of EntProp, (1) to (6), on images in [0, 1]; return both losses."""
    radius = (alpha if n == 1 else (n + 1) * alpha) if eps is None else eps
    optimizer.zero_grad()

    # (1) MixUp of the whole batch.
    x_m, y_b, lam = _mixed(images, labels, mixup, generator)

    # (2) ONE pass through the main norms: the loss and, from the same logits, the entropies.
    x_m = x_m.detach().requires_grad_()
    with route(model, "main"):
        logits = full_precision(model(x_m))
    loss_a, loss_b = (F.cross_entropy(logits, y, reduction="none") for y in (labels, y_b))
    main_loss = mixed_loss(loss_a, loss_b, lam).mean()

    # (3) Its backward pass gives the images' gradient for free.
    main_loss.backward()
    assert x_m.grad is not None

    # (4) The m rows of highest entropy.
    selected = select_topk(entropy(logits.detach()), num_selected(k, len(images)))
    x_0, y, gradient = x_m.detach()[selected], labels[selected], x_m.grad[selected]

    # (5) n passes through the auxiliary norms. All but the last serve the images' gradient alone,
    # and leave the running statistics to the last.
    halves = [layer.aux for layer in dual_layers(model)]
    x_a = x_0
    for i in range(1, n + 1):
        x_a = perturb(x_a, gradient, x_0, alpha=alpha, eps=radius, low=0.0, high=1.0)
        x_a.requires_grad_(i < n)
        with route(model, "aux"), frozen_statistics(halves if i < n else ()):
            aux_loss = F.cross_entropy(full_precision(model(x_a)), y)
            if i < n:
                (gradient,) = torch.autograd.grad(aux_loss, x_a)
                x_a = x_a.detach()

    # (6) One optimiser step on L_m + L_c, whose gradients add up in `.grad`.
    aux_loss.backward()
    optimizer.step()
    return main_loss.detach(), aux_loss.detach()


def entprop_pipelined_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,
    labels: Tensor,
    waiting: Waiting | None,
    *,
    k: float = 0.2,
    alpha: float = 1 / 255,
    eps: float | None = None,
    mixup: float = 1.0,
    aux_weight: float = 1.0,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor, Waiting]:
    """Take one step of (14) to (16); return main loss, that of what waited, and what waits."""
    optimizer.zero_grad()

    # (1) MixUp of the batch. What waits was mixed a step ago.
    x_m, y_b, lam = _mixed(images, labels, mixup, generator)
    x_m = x_m.detach().requires_grad_()

    # (14) ONE pass: the batch through the main norms, what waits through the auxiliary ones.
    rows = x_m if waiting is None else torch.cat((x_m, waiting[0]))
    with route(model, len(images)):
        main, aux = full_precision(model(rows)).tensor_split([len(images)])
    loss_a, loss_b = (F.cross_entropy(main, y, reduction="none") for y in (labels, y_b))
    main_loss = mixed_loss(loss_a, loss_b, lam).mean()
    aux_loss = main_loss.new_zeros(()) if waiting is None else F.cross_entropy(aux, waiting[1])

    # (15) One backward pass and one optimiser step on L_m + aux_weight * L_c.
    (main_loss + aux_weight * aux_loss).backward()
    optimizer.step()

    # (16) The rows of highest entropy, one free step along their gradients: they wait.
    assert x_m.grad is not None
    selected = select_topk(entropy(main.detach()), num_selected(k, len(images)))
    x_0, gradient = x_m.detach()[selected], x_m.grad[selected]
    radius = alpha if eps is None else eps
    x_a = perturb(x_0, gradient, x_0, alpha=alpha, eps=radius, low=0.0, high=1.0)
    return main_loss.detach(), aux_loss.detach(), (x_a, labels[selected])


def _mixed(
    images: Tensor, labels: Tensor, mixup: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mixed images, the partners' labels and lam (1)."""
    if not mixup:
        return images, labels, torch.ones((), dtype=images.dtype, device=images.device)
    lam, partners = draw_lam(mixup, images, generator), draw_partners(images, generator)
    return mix(images, partners, lam), labels[partners], lam

"""One training step written out in float64 formulas, without any of the package's code.

The network is `support.plain_network` with two halves for each norm; torch gives the convolution
and the derivative of the formulas, everything else stands here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Array = npt.NDArray[np.float64]
Target = tuple[Tensor, Tensor, float]  # own labels, the partners', share of the own
LossFormula = Callable[[Tensor, Tensor], Tensor]  # (log p [B, classes], labels [B]) -> [B]


@dataclass(frozen=True)
class Settings:
    """Options of a step; `k=None` is plain training, or MixUp training where lam is given."""

    k: float | None = 0.2
    n: int = 1
    alpha: float = 1 / 255
    eps: float | None = None
    score: str = "entropy"
    aux_labels: str = "original"
    accumulate: str = "last"
    aux_weight: float = 1.0
    aux_stats: str = "last"
    equalize: bool = False
    label_smoothing: float = 0.0
    input_range: tuple[float, float] = (0.0, 1.0)
    max_grad_norm: float | None = None
    attack_loss: str = "ce"
    norms: str = "dual"
    jsd: float = 0.0


@dataclass(frozen=True)
class Draws:
    """The random numbers of a step."""

    lam: float
    partners: list[int]
    score: list[float]
    box: list[list[bool]] | None = None  # CutMix's, True inside


@dataclass
class Outcome:
    """What a step reports; `log_p` and `entropies` of the main pass, for what selects."""

    loss: float
    aux_loss: float
    correct: int
    entropy_selected: float
    entropy_unselected: float
    selected: list[int]
    perturbed: Tensor | None
    log_p: Tensor
    entropies: list[float]


class ByHand:
    """Network, losses, gradients and SGD with momentum as formulas on a dict of tensors.

    Args:
        state: state dict of a dual network, float64; copied.
        mean, std: of a normalisation in front of the network, per channel.
        loss: in place of cross-entropy.
    """

    lr, momentum, weight_decay = 0.1, 0.9, 5e-4

    def __init__(
        self,
        state: dict[str, Tensor],
        mean: tuple[float, ...] = (0.0, 0.0, 0.0),
        std: tuple[float, ...] = (1.0, 1.0, 1.0),
        loss: LossFormula | None = None,
    ) -> None:
        self.state = {name: value.detach().clone() for name, value in state.items()}
        self.velocity: dict[str, Tensor] = {}
        self.mean, self.std = (
            torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (mean, std)
        )
        self.loss = loss
        self.norms = "dual"  # or what one of both kinds of pass serves both
        self.learned = [
            name
            for name in self.state
            if name.endswith(("weight", "bias")) and "running" not in name
        ]

    def step(
        self, images: Tensor, labels: Tensor, s: Settings, draws: Draws | None = None
    ) -> Outcome:
        """Images [B, 3, H, W] in image units, before the normalisation."""
        x, target = (images, unmixed(labels)) if s.jsd else mixed_by_hand(images, labels, draws)
        self.norms = s.norms
        x, w = x.clone().requires_grad_(), self.weights()
        losses, out = self.clean_pass(w, x, target, s)
        g = torch.autograd.grad(losses.sum(), x, retain_graph=True)[0]
        total = self.gradients(losses.sum() if s.equalize else losses.mean(), w)
        x, g = x.detach()[: len(labels)], g[: len(labels)]  # of first views
        weighted_rows = 0.0
        if s.k is not None:
            rows = self.select(out, labels, s, draws.score if draws else [])
            x_0 = x.detach()[rows].numpy()
            x_a, g = x_0, g[rows]
            clean, aimed = out.log_p.detach()[rows], selected_by_hand(target, rows, s)
            for i in range(1, s.n + 1):
                x_a = perturb_by_hand(x_a, g.numpy(), x_0, s)
                leaf = torch.from_numpy(x_a).requires_grad_()
                move = i == s.n or s.aux_stats == "every"
                log_p = self.log_probabilities(w, leaf, aux=True, move=move)
                losses = climbed = self.losses(log_p, aimed, s)
                if s.attack_loss != "ce":
                    climbed = attack_by_hand(s.attack_loss, log_p, labels[rows], clean)
                g = torch.autograd.grad(climbed.sum(), leaf, retain_graph=True)[0]
                out.aux_loss = float(losses.detach().mean())
                if i == s.n or s.accumulate == "all":
                    kept = losses.sum() if s.equalize else losses.mean()
                    total = add(total, self.gradients(s.aux_weight * kept, w))
                    weighted_rows += s.aux_weight * len(rows)
            out.perturbed = torch.from_numpy(x_a)
        if s.equalize:
            for name in total:
                reached = len(x) + weighted_rows
                if name.startswith("bn") and s.norms in ("dual", "affine"):
                    reached = weighted_rows if "aux_bn" in name else len(x)
                total[name] = total[name] / reached
        self.descend(total, s.max_grad_norm)
        for name in self.state:  # entries of one tensor
            if "aux_bn" in name and ("running" in name or "num_" in name) == (s.norms == "affine"):
                if s.norms in ("affine", "statistics"):
                    self.state[name] = self.state[name.replace("aux_bn.", "")]
        return out

    def weights(self) -> dict[str, Tensor]:
        return {name: self.state[name].clone().requires_grad_() for name in self.learned}

    def clean_pass(
        self, w: dict[str, Tensor], x: Tensor, target: Target, s: Settings
    ) -> tuple[Tensor, Outcome]:
        """Losses, and what the main pass reports."""
        of_views = self.log_probabilities(w, x, aux=False, move=True)
        log_p = of_views[: len(target[0])]
        del self.logits[len(log_p) :]
        losses = self.losses(log_p, target, s)
        if s.jsd:
            losses = losses + s.jsd * divergence_by_hand(of_views)
        correct = sum(int(row.argmax() == y) for row, y in zip(log_p, target[0], strict=True))
        entropies = [-sum(q * math.log(q) for q in row if q) for row in log_p.exp().tolist()]
        loss, unselected = float(losses.detach().mean()), average(entropies)
        return losses, Outcome(loss, 0.0, correct, math.nan, unselected, [], None, log_p, entropies)

    def select(self, out: Outcome, labels: Tensor, s: Settings, random: list[float]) -> list[int]:
        """The rows of highest score, which `out` reports; `log_probabilities` just ran on them."""
        p, entropies = out.log_p.exp().tolist(), out.entropies
        scores = score_by_hand(s.score, p, labels.tolist(), entropies, random, self.logits)
        assert s.k is not None
        m = max(1, math.floor(s.k * len(p) + 0.5))
        rows = out.selected = sorted(range(len(p)), key=lambda i: (-scores[i], i))[:m]
        out.entropy_selected = average([entropies[i] for i in rows])
        out.entropy_unselected = average([h for i, h in enumerate(entropies) if i not in rows])
        return rows

    def log_probabilities(
        self, w: dict[str, Tensor], x: Tensor, *, aux: bool, move: bool, running: bool = False
    ) -> Tensor:
        h = (x - self.mean) / self.std
        h = F.conv2d(h, w["conv1.weight"], padding=1)
        h = positive_part(self.norm("bn1", h, w, aux, move, running))
        h = F.conv2d(h, w["conv2.weight"], w["conv2.bias"], stride=2)
        h = positive_part(self.norm("bn2", h, w, aux, move, running))
        logits = h.mean(dim=(2, 3)) @ w["head.weight"].T + w["head.bias"]
        self.logits: list[list[float]] = logits.detach().tolist()  # of the last pass
        top = logits.detach().max(dim=1, keepdim=True).values
        return logits - top - (logits - top).exp().sum(dim=1, keepdim=True).log()

    def norm(
        self, name: str, h: Tensor, w: dict[str, Tensor], aux: bool, move: bool, running: bool
    ) -> Tensor:
        affine = name + (".aux_bn" if aux and self.norms in ("dual", "affine") else "")
        name += ".aux_bn" if aux and self.norms in ("dual", "statistics") else ""
        mean = h.mean(dim=(0, 2, 3), keepdim=True)
        variance = ((h - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        if running:
            parts = ("running_mean", "running_var")
            mean, variance = (self.state[f"{name}.{part}"].view(1, -1, 1, 1) for part in parts)
        if move:
            count = h.numel() // h.shape[1]
            unbiased = variance.detach().flatten() * count / (count - 1)
            old = self.state[f"{name}.running_mean"], self.state[f"{name}.running_var"]
            self.state[f"{name}.running_mean"] = 0.9 * old[0] + 0.1 * mean.detach().flatten()
            self.state[f"{name}.running_var"] = 0.9 * old[1] + 0.1 * unbiased
            self.state[f"{name}.num_batches_tracked"] += 1
        scale, shift = (w[f"{affine}.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
        return (h - mean) / (variance + 1e-5).sqrt() * scale + shift

    def losses(self, log_p: Tensor, target: Target, s: Settings) -> Tensor:
        def of(labels: Tensor) -> Tensor:
            if self.loss is not None:
                return self.loss(log_p, labels)
            of_label = torch.stack([row[y] for row, y in zip(log_p, labels, strict=True)])
            return -(1 - s.label_smoothing) * of_label - s.label_smoothing * log_p.mean(dim=1)

        labels, partners, lam = target
        return lam * of(labels) + (1 - lam) * of(partners)

    def gradients(self, loss: Tensor, w: dict[str, Tensor]) -> dict[str, Tensor]:
        """Of the parameters that the loss reaches."""
        found = torch.autograd.grad(loss, list(w.values()), allow_unused=True)
        return {name: g for name, g in zip(w, found, strict=True) if g is not None}

    def descend(self, gradients: dict[str, Tensor], max_norm: float | None) -> None:
        if max_norm is not None:
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
            # torch.nn.utils.clip_grad_norm_ documents the 1e-6 in its formula's denominator.
            share = min(1.0, max_norm / (norm + 1e-6))
            gradients = {name: share * g for name, g in gradients.items()}
        for name, g in gradients.items():
            g = g + self.weight_decay * self.state[name]
            if name in self.velocity:
                g = self.momentum * self.velocity[name] + g
            self.velocity[name] = g
            self.state[name] = self.state[name] - self.lr * g


def score_by_hand(
    score: str,
    p: list[list[float]],
    labels: list[int],
    entropies: list[float],
    random: list[float],
    logits: list[list[float]],
) -> list[float]:
    """How uncertain each row is, from probabilities [B][classes]."""
    rows = list(zip(p, labels, strict=True))
    scores: dict[str, Callable[[], list[float]]] = {
        "entropy": lambda: entropies,
        "confidence": lambda: [-max(row) for row in p],
        "cross_entropy": lambda: [-math.log(row[y]) for row, y in rows],
        "margin": lambda: [max(row[:y] + row[y + 1 :]) - row[y] for row, y in rows],
        "energy": lambda: [-math.log(sum(math.exp(z) for z in row)) for row in logits],
        "gini": lambda: [1 - sum(q * q for q in row) for row in p],
        "random": lambda: random,
    }
    return scores[score]()


def divergence_by_hand(log_p: Tensor) -> Tensor:
    """Jensen-Shannon divergence of three views of each row, from log p [3 * B, classes]: [B]."""
    first, second, third = log_p.tensor_split(3)
    log_m = ((first.exp() + second.exp() + third.exp()) / 3).clamp(1e-7, 1).log()
    parts = [(one.exp() * (one - log_m)).sum(dim=1) for one in (first, second, third)]
    return (parts[0] + parts[1] + parts[2]) / 3


def unmixed(labels: Tensor) -> Target:
    return labels, labels, 1.0


def mixed_by_hand(images: Tensor, labels: Tensor, draws: Draws | None) -> tuple[Tensor, Target]:
    """Images mixed by MixUp or CutMix, and what they aim at."""
    if draws is None:
        return images, unmixed(labels)
    lam, partners = draws.lam, images[draws.partners]
    x = lam * images + (1 - lam) * partners
    if draws.box is not None:
        x = torch.where(torch.tensor(draws.box), partners, images)
        lam = 1 - average([float(inside) for row in draws.box for inside in row])
    return x, (labels, labels[draws.partners], lam)


def selected_by_hand(target: Target, rows: list[int], s: Settings) -> Target:
    """What the auxiliary rows aim at."""
    labels, partners, lam = target
    other = labels if s.aux_labels == "original" else partners
    return labels[rows], other[rows], lam


def attack_by_hand(attack_loss: str, log_p: Tensor, labels: Tensor, clean: Tensor) -> Tensor:
    """C&W's and TRADES' losses, from log p and the clean rows' log p, [B, classes] -> [B]."""
    if attack_loss == "trades":
        return (clean.exp() * (clean - log_p)).sum(dim=1)
    rows = [(row, int(y)) for row, y in zip(log_p, labels, strict=True)]
    # Differences of log p are differences of logits.
    return torch.stack([torch.cat((row[:y], row[y + 1 :])).max() - row[y] for row, y in rows])


def perturb_by_hand(x_a: Array, g: Array, x_0: Array, s: Settings) -> Array:
    """One sign step from x_a, kept within eps of x_0 and within the image range."""
    eps = s.eps
    if eps is None:
        eps = s.alpha if s.n == 1 else (s.n + 1) * s.alpha
    offset = np.clip(x_a - x_0 + s.alpha * np.sign(g), -eps, eps)
    return np.asarray(np.clip(x_0 + offset, *s.input_range))


def positive_part(h: Tensor) -> Tensor:
    return torch.where(h > 0, h, 0.0)


def average(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def add(one: dict[str, Tensor], other: dict[str, Tensor]) -> dict[str, Tensor]:
    both = {name: one[name] + other[name] for name in one.keys() & other.keys()}
    return one | other | both

"""The steps of the other methods in the formulas of `by_hand`, without the package's code."""

import math

import numpy as np
import torch
from torch import Tensor

from tests.methods.by_hand import (
    ByHand,
    Draws,
    Outcome,
    Settings,
    add,
    attack_by_hand,
    average,
    mixed_by_hand,
    perturb_by_hand,
    score_by_hand,
)


class OthersByHand(ByHand):
    """AdvProp, Fast AdvProp, MixProp, free training and pipelined EntProp."""

    delta = np.zeros((0, 3, 6, 6))
    waiting: tuple[Tensor, Tensor, Tensor, float] | None = None  # images, two labels, share

    def weights(self) -> dict[str, Tensor]:
        return {name: self.state[name].clone().requires_grad_() for name in self.learned}

    def clean_pass(
        self, w: dict[str, Tensor], x: Tensor, labels: Tensor, s: Settings
    ) -> tuple[Tensor, Tensor, Outcome, list[float]]:
        """Losses, log p, what the main pass reports, and the entropies."""
        log_p = self.log_probabilities(w, x, aux=False, move=True)
        losses = self.losses(log_p, labels, s)
        correct = sum(int(row.argmax() == y) for row, y in zip(log_p, labels, strict=True))
        p = log_p.detach().exp().tolist()
        entropies = [-sum(q * math.log(q) for q in row if q > 0) for row in p]
        loss = float(losses.detach().mean())
        out = Outcome(loss, 0.0, correct, math.nan, average(entropies), [], None)
        return losses, log_p.detach(), out, entropies

    def chosen(
        self,
        log_p: Tensor,
        labels: Tensor,
        entropies: list[float],
        s: Settings,
        random: list[float],
    ) -> list[int]:
        """The rows of highest score; `log_probabilities` has just run on them."""
        p = log_p.exp().tolist()
        scores = score_by_hand(s.score, p, labels.tolist(), entropies, random, self.logits)
        assert s.k is not None
        m = max(1, math.floor(s.k * len(p) + 0.5))
        return sorted(range(len(p)), key=lambda i: (-scores[i], i))[:m]

    def advprop(
        self,
        images: Tensor,
        labels: Tensor,
        s: Settings,
        start: Tensor,
        random: list[float],
        *,
        running: bool,
    ) -> Outcome:
        """`start`: offsets of the attacked rows, [m, 3, H, W]; `running`: attack in eval mode."""
        w = self.weights()
        losses, clean, out, entropies = self.clean_pass(w, images, labels, s)
        total = self.gradients(losses.mean() / 2, w)
        rows = list(range(len(images)))
        if s.k is not None:
            rows = out.selected = self.chosen(clean, labels, entropies, s, random)
            out.entropy_selected = average([entropies[i] for i in rows])
            others = [h for i, h in enumerate(entropies) if i not in rows]
            out.entropy_unselected = average(others)
        x_0, y = images[rows].numpy(), labels[rows]
        x_a = np.clip(x_0 + start.numpy(), *s.input_range)
        for _ in range(s.n):
            leaf = torch.from_numpy(x_a).requires_grad_()
            log_p = self.log_probabilities(w, leaf, aux=True, move=False, running=running)
            climbed = self.losses(log_p, y, s)
            if s.attack_loss != "ce":
                climbed = attack_by_hand(s.attack_loss, log_p, y, clean[rows])
            g = torch.autograd.grad(climbed.sum(), leaf)[0]
            x_a = perturb_by_hand(x_a, g.numpy(), x_0, s)
        out.perturbed = torch.from_numpy(x_a)
        losses = self.losses(self.log_probabilities(w, out.perturbed, aux=True, move=True), y, s)
        out.aux_loss = float(losses.detach().mean())
        self.descend(add(total, self.gradients(losses.mean() / 2, w)), s.max_grad_norm)
        return out

    def fast_advprop(
        self,
        images: Tensor,
        labels: Tensor,
        s: Settings,
        start: Tensor,
        random: list[float],
        *,
        p_adv: float,
    ) -> Outcome:
        w, b = self.weights(), len(start)
        first = len(images) if s.k is not None else len(images) - b
        assert s.k is not None or b == max(1, math.floor(p_adv * len(images) + 0.5))
        losses, clean, out, entropies = self.clean_pass(w, images[:first], labels[:first], s)
        total = self.gradients(losses.sum(), w)
        out.selected = list(range(first, len(images)))
        if s.k is not None:
            out.selected = self.chosen(clean, labels, entropies, s, random)
            out.entropy_selected = average([entropies[i] for i in out.selected])
            others = [h for i, h in enumerate(entropies) if i not in out.selected]
            out.entropy_unselected = average(others)
        x_0, y = images[out.selected].numpy(), labels[out.selected]
        x_a = np.clip(x_0 + start.numpy(), *s.input_range)
        for move in (False, True):
            leaf = torch.from_numpy(x_a).requires_grad_()
            losses = self.losses(self.log_probabilities(w, leaf, aux=True, move=move), y, s)
            if not move:
                g = torch.autograd.grad(losses.sum(), leaf, retain_graph=True)[0]
                x_a = perturb_by_hand(x_a, g.numpy(), x_0, s)
            total = add(total, self.gradients(0.5 * losses.sum(), w))
        out.perturbed, out.aux_loss = torch.from_numpy(x_a), float(losses.detach().mean())
        for name in total:
            reached = first + b
            if name.startswith("bn"):
                reached = b if "aux_bn" in name else first
            total[name] = total[name] / reached
        self.descend(total, s.max_grad_norm)
        return out

    def mixprop(self, images: Tensor, labels: Tensor, s: Settings, draws: Draws | None) -> Outcome:
        w = self.weights()
        losses, _, out, _ = self.clean_pass(w, images, labels, s)
        total = self.gradients(losses.mean() / 2, w)
        lam, partners = (1.0, list(range(len(images))))
        if draws is not None:
            lam, partners = draws.lam, draws.partners
        mixed = lam * images + (1 - lam) * images[partners]
        log_p = self.log_probabilities(w, mixed, aux=True, move=True)
        own, other = (self.losses(log_p, y, s) for y in (labels, labels[partners]))
        losses = lam * own + (1 - lam) * other
        out.aux_loss = float(losses.detach().mean())
        self.descend(add(total, self.gradients(losses.mean() / 2, w)), s.max_grad_norm)
        return out

    def free_at(self, images: Tensor, labels: Tensor, s: Settings, *, replays: int) -> Outcome:
        assert s.eps is not None
        rows = len(images)
        missing = np.zeros((max(0, rows - len(self.delta)), 3, 6, 6))
        self.delta = np.concatenate((self.delta, missing))
        for _ in range(replays):
            w = self.weights()
            x_a = torch.from_numpy(np.clip(images.numpy() + self.delta[:rows], *s.input_range))
            losses, _, out, _ = self.clean_pass(w, x_a.requires_grad_(), labels, s)
            g = torch.autograd.grad(losses.mean(), x_a, retain_graph=True)[0]
            moved = self.delta[:rows] + s.alpha * np.sign(g.numpy())
            self.delta[:rows] = np.clip(moved, -s.eps, s.eps)
            self.descend(self.gradients(losses.mean(), w), s.max_grad_norm)
            out.perturbed = x_a.detach()
        return out

    def pipelined(
        self, images: Tensor, labels: Tensor, s: Settings, draws: Draws | None = None
    ) -> Outcome:
        """The batch and what waits in a pass each: the formulas know no split norm."""
        w = self.weights()
        x, lam, labels_b = mixed_by_hand(images, labels, draws)
        x = x.clone().requires_grad_()
        own, log_p, out, entropies = self.clean_pass(w, x, labels, s)
        out.selected = self.chosen(log_p, labels, entropies, s, draws.score if draws else [])
        partners = self.losses(self.log_probabilities(w, x, aux=False, move=False), labels_b, s)
        losses = lam * own + (1 - lam) * partners
        out.loss = float(losses.detach().mean())
        g = torch.autograd.grad(losses.sum(), x, retain_graph=True)[0]
        total = self.gradients(losses.mean(), w)
        if self.waiting is not None:
            x_a, y, y_b, lam_a = self.waiting
            log_p_a = self.log_probabilities(w, x_a, aux=True, move=True)
            losses = lam_a * self.losses(log_p_a, y, s) + (1 - lam_a) * self.losses(log_p_a, y_b, s)
            out.aux_loss = float(losses.detach().mean())
            total = add(total, self.gradients(s.aux_weight * losses.mean(), w))
        self.descend(total, s.max_grad_norm)
        x_0 = x.detach()[out.selected].numpy()
        out.perturbed = torch.from_numpy(perturb_by_hand(x_0, g[out.selected].numpy(), x_0, s))
        y, y_b = labels[out.selected], labels_b[out.selected]
        self.waiting = out.perturbed, y, (y if s.aux_labels == "original" else y_b), lam
        out.entropy_selected = average([entropies[i] for i in out.selected])
        others = [h for i, h in enumerate(entropies) if i not in out.selected]
        out.entropy_unselected = average(others)
        return out

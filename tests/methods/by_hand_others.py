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
    Target,
    add,
    attack_by_hand,
    mixed_by_hand,
    perturb_by_hand,
    selected_by_hand,
    unmixed,
)


class OthersByHand(ByHand):
    """AdvProp, Fast AdvProp, MixProp, free training and pipelined EntProp."""

    delta = np.zeros((0, 3, 6, 6))
    waiting: tuple[Tensor, Target] | None = None

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
        losses, out = self.clean_pass(w, images, unmixed(labels), s)
        total = self.gradients(losses.mean() / 2, w)
        rows = list(range(len(images)))
        if s.k is not None:
            rows = self.select(out, labels, s, random)
        x_0, y = images[rows].numpy(), unmixed(labels[rows])
        x_a = np.clip(x_0 + start.numpy(), *s.input_range)
        for _ in range(s.n):
            leaf = torch.from_numpy(x_a).requires_grad_()
            log_p = self.log_probabilities(w, leaf, aux=True, move=False, running=running)
            climbed = self.losses(log_p, y, s)
            if s.attack_loss != "ce":
                climbed = attack_by_hand(s.attack_loss, log_p, y[0], out.log_p.detach()[rows])
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
        losses, out = self.clean_pass(w, images[:first], unmixed(labels[:first]), s)
        total = self.gradients(losses.sum(), w)
        out.selected = list(range(first, len(images)))
        if s.k is not None:
            self.select(out, labels, s, random)
        x_0, y = images[out.selected].numpy(), unmixed(labels[out.selected])
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
        losses, out = self.clean_pass(w, images, unmixed(labels), s)
        total = self.gradients(losses.mean() / 2, w)
        mixed, target = mixed_by_hand(images, labels, draws)
        log_p = self.log_probabilities(w, mixed, aux=True, move=True)
        losses = self.losses(log_p, target, s)
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
            losses, out = self.clean_pass(w, x_a.requires_grad_(), unmixed(labels), s)
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
        x, target = mixed_by_hand(images, labels, draws)
        x, w = x.clone().requires_grad_(), self.weights()
        losses, out = self.clean_pass(w, x, target, s)
        rows = self.select(out, labels, s, draws.score if draws else [])
        g = torch.autograd.grad(losses.sum(), x, retain_graph=True)[0]
        total = self.gradients(losses.mean(), w)
        if self.waiting is not None:
            x_a, aimed = self.waiting
            losses = self.losses(self.log_probabilities(w, x_a, aux=True, move=True), aimed, s)
            out.aux_loss = float(losses.detach().mean())
            total = add(total, self.gradients(s.aux_weight * losses.mean(), w))
        self.descend(total, s.max_grad_norm)
        x_0 = x.detach()[rows].numpy()
        out.perturbed = torch.from_numpy(perturb_by_hand(x_0, g[rows].numpy(), x_0, s))
        self.waiting = out.perturbed, selected_by_hand(target, rows, s)
        return out

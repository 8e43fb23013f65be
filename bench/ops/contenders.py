"""Make ours, eager and the best existing parts callable over one set of inputs for each case."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ops import peers
from bench.timing import Contender
from entprop_fast.ops import Half, dual_batch_norm, entropy_topk, gather_perturb, perturb_
from entprop_fast.ops.loss_and_entropy import OP as LOSS
from entprop_fast.ops.select_topk import OP as TOPK

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Place:
    """Say where the tensors of a case lie and as what; CUDA adds `torch.compile`."""

    device: str
    dtype: torch.dtype

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(shape, device=self.device).to(self.dtype)

    def image(self, shape: tuple[int, ...], layout: str) -> Tensor:
        values = torch.randn(shape, device=self.device).to(self.dtype)
        return values.contiguous(memory_format=FORMATS[layout])

    def parameters(self, channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return weight, bias, running mean and variance: float32, also beside bfloat16 images."""
        weight, mean = torch.ones(channels, device=self.device), torch.zeros(channels)
        bias, var = torch.zeros_like(weight), torch.ones_like(weight)
        return weight.requires_grad_(), bias.requires_grad_(), mean.to(self.device), var

    @property
    def compiled(self) -> bool:
        return self.device != "cpu" and self.dtype != torch.float16

    @property
    def has_peers(self) -> bool:
        """Whether others have norms for it that PyTorch does not take of its own: `peers`."""
        return self.device != "cpu" and self.dtype == torch.float16


def _beside(
    place: Place, ours: Contender, eager: Callable[[], Any], made: Callable[[Any], Contender]
) -> dict[str, Contender]:
    """Put ours beside what is `made` of eager, and of eager compiled where `place` has that."""
    compiled = {"compile": made(torch.compile(eager))} if place.compiled else {}
    return {"ours": ours, "eager": made(eager), **compiled}


def _beside_peers(
    place: Place,
    ours: Contender,
    eager: peers.Forward,
    made: Callable[[Any], Contender],
    others: dict[str, Callable[[], Contender]],
) -> dict[str, Contender]:
    """Put ours beside PyTorch's own kernels, cuDNN's and `others`, as far as they run here."""
    found = _beside(place, ours, peers.native(eager), made)
    makers = {peers.CUDNN: lambda: made(peers.of_cudnn(eager)), **others}
    return found | peers.usable(makers, found["eager"], place.dtype)


def _trained(forward: Callable[[], Tensor], inputs: list[Tensor], grad: Tensor) -> Contender:
    def step() -> tuple[Tensor, ...]:
        y = forward()
        return y, *torch.autograd.grad(y, inputs, grad)

    return step


def _norm(x: Tensor, parameters: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    weight, bias, mean, var = parameters
    return F.batch_norm(x, mean, var, weight, bias, training=True)


def one_group(
    shape: tuple[int, ...], layout: str, place: Place, *, residual: bool
) -> dict[str, Contender]:
    """Make BN (+ add) + ReLU, forward and backward, all rows main."""
    x, grad = place.image(shape, layout).requires_grad_(), place.image(shape, layout)
    added = place.image(shape, layout).requires_grad_() if residual else None
    main, aux = place.parameters(shape[1]), place.parameters(shape[1])
    inputs = [x, *main[:2], *([] if added is None else [added])]

    def eager() -> Tensor:
        y = _norm(x, main)
        return F.relu(y if added is None else y + added)

    def ours() -> Tensor:
        return dual_batch_norm(x, Half(*main), Half(*aux), residual=added, relu=True)

    def apex() -> Contender:
        forward, parameters = peers.of_apex(x, added)
        return _trained(forward, [x, *parameters, *inputs[3:]], grad)

    made = partial(_trained, inputs=inputs, grad=grad)
    if place.has_peers:
        return _beside_peers(place, made(ours), eager, made, {peers.APEX: apex})
    return _beside(place, made(ours), eager, made)


def two_groups(shape: tuple[int, ...], layout: str, place: Place) -> dict[str, Contender]:
    """Make the first half main, the second auxiliary; timm's module can do no other split."""
    from timm.layers import SplitBatchNorm2d

    x, grad = place.image(shape, layout).requires_grad_(), place.image(shape, layout)
    main, aux = place.parameters(shape[1]), place.parameters(shape[1])
    half = shape[0] // 2
    split: torch.nn.Module = SplitBatchNorm2d(shape[1])  # type: ignore[no-untyped-call]
    split = split.to(place.device)

    def eager() -> Tensor:
        return F.relu(torch.cat([_norm(x[:half], main), _norm(x[half:], aux)]))

    def ours() -> Tensor:
        return dual_batch_norm(x, Half(*main), Half(*aux), half, relu=True)

    made = partial(_trained, inputs=[x, *main[:2], *aux[:2]], grad=grad)
    timm = _trained(lambda: F.relu(split(x)), [x, *split.parameters()], grad)
    if place.has_peers:
        return _beside_peers(place, made(ours), eager, made, {}) | {"timm": timm}
    return _beside(place, made(ours), eager, made) | {"timm": timm}


def loss(shape: tuple[int, int], place: Place, *, autograd: bool) -> dict[str, Contender]:
    """Make MixUp loss, entropy, its top fifth and the logits' gradient.

    Without `autograd` ours is the two ops alone, which return dlogits; with it, the public function
    and a backward, as a training step runs it. Eager is the same in both.
    """
    device = place.device
    logits = place.image(shape, "contiguous").requires_grad_()
    values = logits.detach()
    a, b = torch.randint(shape[1], (2, shape[0]), device=device)
    lam, k = torch.tensor(0.3, device=device), shape[0] // 5
    ones = torch.ones(shape[0], device=device)

    def ops_alone() -> tuple[Tensor, ...]:
        loss, entropy, score, dlogits = LOSS(values, a, b, lam, 0.0, "entropy")
        return loss, entropy, dlogits, TOPK(score, k)

    def through_autograd() -> tuple[Tensor, ...]:
        result = entropy_topk(logits, a, k, b, lam)
        (dlogits,) = torch.autograd.grad(result.loss, logits, ones)
        return result.loss, result.entropy, dlogits, result.selected

    def forward() -> tuple[Tensor, Tensor]:
        value = lam * F.cross_entropy(logits, a, reduction="none")
        value = value + (1 - lam) * F.cross_entropy(logits, b, reduction="none")
        with torch.no_grad():
            log_p = logits.log_softmax(1)
            return value, -(log_p.exp() * log_p).sum(1)

    def chain(forward: Callable[[], tuple[Tensor, Tensor]]) -> Contender:
        def step() -> tuple[Tensor, ...]:
            value, entropy = forward()
            (dlogits,) = torch.autograd.grad(value, logits, ones)
            return value, entropy, dlogits, entropy.topk(k).indices

        return step

    return _beside(place, through_autograd if autograd else ops_alone, forward, chain)


def _limits(place: Place) -> list[Tensor]:
    values = (1 / 255, 2 / 255, 0.0, 1.0)
    return [torch.full((3,), value, dtype=place.dtype, device=place.device) for value in values]


def _step(x: Tensor, x_adv: Tensor, grad: Tensor, limits: list[Tensor]) -> Tensor:
    alpha, eps, lo, hi = (value[:, None, None] for value in limits)
    moved = torch.clamp(x_adv - x + alpha * grad.sign(), -eps, eps)
    return torch.clamp(x + moved, lo, hi)


def _alone(function: Callable[[], Tensor]) -> Contender:
    return lambda: [function()]


def perturb(shape: tuple[int, ...], place: Place) -> dict[str, Contender]:
    """Make one step in place on a fifth of the batch."""
    x, grad = place.rand(*shape), place.image(shape, "contiguous")
    index = torch.randperm(shape[0], device=place.device)[: shape[0] // 5]
    limits, rows = _limits(place), len(index)
    x_adv, step = x[index], grad[:rows].clone()
    ours: Contender = lambda: [perturb_(x_adv, step, x, index, *limits)]  # noqa: E731
    return _beside(place, ours, lambda: _step(x[index], x_adv, step, limits), _alone)


def gather(shape: tuple[int, ...], place: Place) -> dict[str, Contender]:
    """Make the first step: gather a fifth of the batch and its gradient, and move."""
    x, grad = place.rand(*shape), place.image(shape, "contiguous")
    index = torch.randperm(shape[0], device=place.device)[: shape[0] // 5]
    limits, out = _limits(place), torch.empty_like(x[: shape[0] // 5])
    ours: Contender = lambda: [gather_perturb(x, grad, index, *limits, out=out)]  # noqa: E731
    return _beside(place, ours, lambda: _step(x[index], x[index], grad[index], limits), _alone)

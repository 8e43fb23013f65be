"""What is timed: each op beside torch eager's way, with the target that it has to reach."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ops.timing import Contender
from entprop_fast.ops import dual_batch_norm, entropy_topk, gather_perturb, perturb_
from entprop_fast.ops.loss_and_entropy import OP as LOSS
from entprop_fast.ops.select_topk import OP as TOPK

NORM_SHAPES = (
    (128, 32, 32, 32),
    (128, 160, 32, 32),
    (26, 640, 8, 8),
    (128, 64, 32, 32),
    (64, 256, 14, 14),
    (32, 512, 7, 7),
)
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@dataclass(frozen=True)
class Case:
    """One row of the table; rows of one `op` and `layout` share a target."""

    op: str
    layout: str
    shape: tuple[int, ...]
    target: float
    bytes_moved: int  # the least that ours has to read and write
    contenders: Callable[[], dict[str, Contender]]


def _image(shape: tuple[int, ...], layout: str) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=FORMATS[layout])


def _parameters(channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weight, bias = torch.ones(channels), torch.zeros(channels)
    mean, var = torch.zeros(channels), torch.ones(channels)
    return weight.requires_grad_(), bias.requires_grad_(), mean, var


def _trained(forward: Callable[[], Tensor], inputs: list[Tensor], grad: Tensor) -> Contender:
    return lambda: torch.autograd.grad(forward(), inputs, grad)


def _norm(x: Tensor, parameters: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    weight, bias, mean, var = parameters
    return F.batch_norm(x, mean, var, weight, bias, training=True)


def one_group(shape: tuple[int, ...], layout: str, *, residual: bool) -> dict[str, Contender]:
    """BN (+ add) + ReLU, forward and backward, all rows main."""
    x, grad = _image(shape, layout).requires_grad_(), _image(shape, layout)
    added = _image(shape, layout).requires_grad_() if residual else None
    main, aux = _parameters(shape[1]), _parameters(shape[1])
    inputs = [x, *main[:2], *([] if added is None else [added])]

    def eager() -> Tensor:
        y = _norm(x, main)
        return F.relu(y if added is None else y + added)

    def ours() -> Tensor:
        return dual_batch_norm(x, added, *main, *aux, shape[0], relu=True)

    return {"ours": _trained(ours, inputs, grad), "eager": _trained(eager, inputs, grad)}


def two_groups(shape: tuple[int, ...], layout: str) -> dict[str, Contender]:
    """The first half main, the second auxiliary; timm's module can do no other split."""
    from timm.layers import SplitBatchNorm2d

    x, grad = _image(shape, layout).requires_grad_(), _image(shape, layout)
    main, aux = _parameters(shape[1]), _parameters(shape[1])
    half = shape[0] // 2
    split: torch.nn.Module = SplitBatchNorm2d(shape[1])  # type: ignore[no-untyped-call]

    def eager() -> Tensor:
        return F.relu(torch.cat([_norm(x[:half], main), _norm(x[half:], aux)]))

    def ours() -> Tensor:
        return dual_batch_norm(x, None, *main, *aux, half, relu=True)

    inputs = [x, *main[:2], *aux[:2]]
    return {
        "ours": _trained(ours, inputs, grad),
        "eager": _trained(eager, inputs, grad),
        "timm": _trained(lambda: F.relu(split(x)), [x, *split.parameters()], grad),
    }


def loss(shape: tuple[int, int], *, autograd: bool) -> dict[str, Contender]:
    """MixUp loss, entropy, its top fifth and the logits' gradient.

    Without `autograd` ours is the two ops alone, which return dlogits; with it, the public function
    and a backward, as a training step runs it. Eager is the same in both.
    """
    logits = torch.randn(shape, requires_grad=True)
    values = logits.detach()
    a, b = torch.randint(shape[1], (2, shape[0]))
    lam, k = torch.tensor(0.3), shape[0] // 5
    ones = torch.ones(shape[0])

    def ops_alone() -> object:
        loss, entropy, score, dlogits = LOSS(values, a, b, lam, 0.0, "entropy")
        return loss, entropy, dlogits, TOPK(score, k)

    def through_autograd() -> object:
        result = entropy_topk(logits, a, k, b, lam)
        return result, torch.autograd.grad(result.loss, logits, ones)

    def eager() -> object:
        value = lam * F.cross_entropy(logits, a, reduction="none")
        value = value + (1 - lam) * F.cross_entropy(logits, b, reduction="none")
        with torch.no_grad():
            log_p = logits.log_softmax(1)
            entropy = -(log_p.exp() * log_p).sum(1)
        return value, entropy, torch.autograd.grad(value, logits, ones), entropy.topk(k).indices

    return {"ours": through_autograd if autograd else ops_alone, "eager": eager}


def _limits() -> list[Tensor]:
    return [torch.full((3,), value) for value in (1 / 255, 2 / 255, 0.0, 1.0)]


def _eager_step(x: Tensor, x_adv: Tensor, grad: Tensor, limits: list[Tensor]) -> Tensor:
    alpha, eps, lo, hi = (value[:, None, None] for value in limits)
    moved = torch.clamp(x_adv - x + alpha * grad.sign(), -eps, eps)
    return torch.clamp(x + moved, lo, hi)


def perturb(shape: tuple[int, ...]) -> dict[str, Contender]:
    """One step in place on a fifth of the batch."""
    x, grad = torch.rand(shape), torch.randn(shape)
    index = torch.randperm(shape[0])[: shape[0] // 5]
    limits, rows = _limits(), len(index)
    x_adv, step = x[index], grad[:rows].clone()
    return {
        "ours": lambda: perturb_(x_adv, step, x, index, *limits),
        "eager": lambda: _eager_step(x[index], x_adv, step, limits),
    }


def gather(shape: tuple[int, ...]) -> dict[str, Contender]:
    """The first step: gather a fifth of the batch and its gradient, and move."""
    x, grad = torch.rand(shape), torch.randn(shape)
    index = torch.randperm(shape[0])[: shape[0] // 5]
    limits, out = _limits(), torch.empty(len(index), *shape[1:])
    return {
        "ours": lambda: gather_perturb(x, grad, index, *limits, out=out),
        "eager": lambda: _eager_step(x[index], x[index], grad[index], limits),
    }


def cases() -> Iterator[Case]:
    """Every row of the CPU table."""
    for layout, one, two, add in (
        ("channels_last", 1.85, 3.0, 1.7),
        ("contiguous", 2.6, 3.7, 2.1),
    ):
        for shape in NORM_SHAPES:
            image = 4 * torch.Size(shape).numel()
            norm = partial(one_group, shape, layout)
            both = partial(two_groups, shape, layout)
            yield Case("norm", layout, shape, one, 8 * image, partial(norm, residual=False))
            yield Case("two groups", layout, shape, two, 8 * image, both)
            yield Case("norm + add", layout, shape, add, 10 * image, partial(norm, residual=True))
    for size in ((128, 100), (256, 1000)):
        moved = 8 * size[0] * size[1]
        yield Case("loss, ops", "contiguous", size, 5.0, moved, partial(loss, size, autograd=False))
        step = partial(loss, size, autograd=True)
        yield Case("loss, autograd", "contiguous", size, 5.0, moved, step)
    small = (128, 3, 32, 32)
    # Eager's page faults decide the ratio at 224 px: two batch sizes, not the kinder one.
    large = ((64, 3, 224, 224), (256, 3, 224, 224))
    for images, target in ((small, 7.0), *((shape, 25.0) for shape in large)):
        moved, op = 16 * torch.Size(images).numel() // 5, f"perturb_ {images[2]} px"
        yield Case(op, "contiguous", images, target, moved, partial(perturb, images))
    moved = 12 * torch.Size(small).numel() // 5
    yield Case("gather_perturb", "contiguous", small, 7.0, moved, partial(gather, small))

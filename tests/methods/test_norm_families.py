"""A step on each family of norms, against two plain networks that share all but their norms."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast import convert_dual_norm, create_method, strip_auxiliary
from entprop_fast.layers.dual_norm import DualNorm
from tests.methods import support as s

ALPHA, M = 1 / 255, 3


class Tracking(nn.Module):
    """A norm of one's own that keeps statistics across rows, in buffers that nobody knows."""

    kept: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.register_buffer("kept", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.kept.lerp_(x.detach().mean((0, 2, 3)), 0.1)
        y: Tensor = (x - x.mean((0, 2, 3), keepdim=True)) * self.scale[:, None, None]
        return y


class To3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(6)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x.unsqueeze(2)).squeeze(2)
        return y


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "BatchNorm1d": lambda: nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(6), nn.Unflatten(2, (3, 3))),
    "BatchNorm3d": To3d,
    "GroupNorm": lambda: nn.GroupNorm(2, 6),
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
    "LayerNorm2d": lambda: torchvision.models.convnext.LayerNorm2d(6),
    "RmsNorm2d": lambda: timm.layers.RmsNorm2d(6),
    "EvoNorm2dB0": lambda: timm.layers.EvoNorm2dB0(6),
    "FilterResponseNorm": lambda: timm.layers.FilterResponseNormAct2d(6),
    "GroupNormAct": lambda: timm.layers.GroupNormAct(6, 2, act_layer=nn.PReLU),
    "FrozenBatchNorm2d": lambda: torchvision.ops.FrozenBatchNorm2d(6),
    "also": lambda: Tracking(6),
}
families = pytest.mark.parametrize("family", FAMILIES)


def network(family: str) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        FAMILIES[family](),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(54, s.CLASSES),
    ).double()


def converted(plain: nn.Module) -> Any:
    also = (Tracking,) if any(isinstance(m, Tracking) for m in plain.modules()) else ()
    return convert_dual_norm(copy.deepcopy(plain), also=also)


def by_hand(plain: Any, images: Tensor, labels: Tensor, passes: int) -> tuple[Any, Any]:
    """Take the gradients of (1) to (6) on two networks, the second of which has its own norms."""
    main, aux = plain, copy.deepcopy(plain)
    for place in (0, 4):  # convolution and head
        aux[place] = main[place]
    x = images.clone().requires_grad_()
    logits = main(x)
    F.cross_entropy(logits, labels).backward()
    p = logits.detach().softmax(1)
    chosen = (-(p * p.log()).sum(1)).argsort(descending=True)[:M]
    assert x.grad is not None
    start, gradient = images[chosen], x.grad[chosen]
    moved, radius = start, (passes + 1) * ALPHA
    for number in range(1, passes + 1):
        moved = start + (moved + ALPHA * gradient.sign() - start).clamp(-radius, radius)
        moved = moved.clamp(0, 1).requires_grad_()
        before = [buffer.clone() for buffer in aux.buffers()]
        loss = F.cross_entropy(aux(moved), labels[chosen])
        if number == passes:
            loss.backward()
            break
        (gradient,) = torch.autograd.grad(loss, moved)
        for buffer, value in zip(aux.buffers(), before, strict=True):
            buffer.copy_(value)
        moved = moved.detach()
    return main, aux


@families
def test_entprop_is_what_two_networks_compute(family: str) -> None:
    plain = network(family)
    dual = converted(plain)
    images, labels = s.batch()
    method = create_method(
        "entprop", dual, torch.optim.SGD(dual.parameters(), 0.1), k=0.25, n=2, mixup=0.0
    )
    method.backward(images, labels)
    main, aux = by_hand(plain, images, labels, 2)
    (norm,) = (module for module in dual.modules() if isinstance(module, DualNorm))
    theirs = {type(module).__name__: module for module in aux.modules()}[norm.plain_class.__name__]
    for half, expected in ((strip_auxiliary(copy.deepcopy(dual)), main), (norm.aux, theirs)):
        for name, buffer in expected.named_buffers():
            torch.testing.assert_close(half.get_buffer(name), buffer, rtol=1e-10, atol=1e-12)
    for name, parameter in main.named_parameters():
        close(dual.get_parameter(name).grad, parameter.grad)
    for name, parameter in theirs.named_parameters():
        close(norm.aux.get_parameter(name).grad, parameter.grad)


def close(found: Tensor | None, expected: Tensor | None) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@families
def test_every_method_takes_it_and_what_is_stripped_stays(family: str) -> None:
    images, labels = s.batch()
    for name in ("advprop", "fast_advprop", "mixprop", "entprop_pipelined", "free_at"):
        model = network(family) if name == "free_at" else converted(network(family))
        step = create_method(name, model, torch.optim.SGD(model.parameters(), 0.1))
        for _ in range(2):
            assert step(images, labels).loss.isfinite()
        expected = model.eval()(images)
        torch.testing.assert_close(strip_auxiliary(model)(images), expected)


@pytest.mark.parametrize("family", ["InstanceNorm2d", "EvoNorm2dB0"])
def test_a_shared_norm_moves_in_the_main_and_the_last_pass(family: str) -> None:
    """The control experiment has one set of statistics, which the passes between do not move."""
    model = network(family)
    twice = copy.deepcopy(model)
    images, labels = s.batch()
    options: dict[str, Any] = {"norms": "shared", "mixup": 0.0, "k": 1.0, "n": 3, "alpha": 1e-9}
    create_method("entprop", model, torch.optim.SGD(model.parameters(), 0.1), **options)(
        images, labels
    )
    for _ in range(2):
        twice(images)
    for name, buffer in twice.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer)


@pytest.mark.parametrize(
    ("norm", "size", "named"),
    [
        (lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(6)), 3, "single row"),
        (lambda: timm.layers.EvoNorm2dB0(6), 3, "single row"),
        (lambda: nn.InstanceNorm2d(6), 3, "images of shape"),
    ],
    ids=["BatchNorm1d", "EvoNorm2dB0", "InstanceNorm2d"],
)
def test_a_single_value_is_refused_before_anything_changes(
    norm: Callable[[], nn.Module], size: int, named: str
) -> None:
    """An instance norm would see one whatever the batch: the images are what is too small."""
    body = (nn.Conv2d(3, 6, 3), norm(), nn.Flatten(), nn.Linear(6, s.CLASSES))
    model: Any = convert_dual_norm(nn.Sequential(*body).double())
    before = copy.deepcopy(model.state_dict())
    step = create_method("entprop", model, torch.optim.SGD(model.parameters(), 0.1), k=0.01)
    images, labels = s.batch()
    with pytest.raises(ValueError, match=named):
        step(images[..., :size, :size], labels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

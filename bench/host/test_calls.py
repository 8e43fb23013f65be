"""Time what a call costs the host, on inputs so small that nothing else counts.

`pytest bench/host`; to see what a change costs, time both trees in turns::

    pytest bench/host --benchmark-save=before     # in a worktree of the commit before
    pytest bench/host --benchmark-compare         # here, with its .benchmarks folder
"""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from entprop_fast import DualBatchNorm2d, convert_dual_norm, create_method, models, ops

Call = Callable[[], object]
ROWS, CLASSES = 16, 10


def _images(channels: int = 3) -> torch.Tensor:
    return torch.rand(ROWS, channels, 4, 4)


def _norm(norm: nn.Module, backward: bool = False, training: bool = True) -> Call:
    x = _images(8).requires_grad_()
    norm.train(training)

    def both() -> None:
        norm(x).sum().backward()

    return both if backward else lambda: norm(x)


def _norms() -> dict[str, Callable[[], Call]]:
    """Return the two norms' calls in turns; no route, so that ours may cost 1.5 times as much."""
    kinds = {
        "forward": {},
        "forward in eval mode": {"training": False},
        "forward and backward": {"backward": True},
    }
    return {
        f"{norm.__name__}, {name}": partial(_norm, norm(8), **options)
        for name, options in kinds.items()
        for norm in (nn.BatchNorm2d, DualBatchNorm2d)
    }


def _loss_and_entropy() -> Call:
    logits, labels = torch.randn(ROWS, CLASSES), torch.arange(ROWS) % CLASSES
    return lambda: ops.loss_and_entropy(logits, labels, labels, torch.tensor(0.3))


def _select_topk() -> Call:
    scores = torch.rand(ROWS)
    return lambda: ops.select_topk(scores, 4)


def _perturb(gather: bool) -> Call:
    x, index = _images(), torch.arange(4)
    moved, gradient = x[index].clone(), torch.randn(4, 3, 4, 4)
    numbers = {"alpha": 1 / 255, "eps": 1 / 255, "lo": 0.0, "hi": 1.0}
    bounds = {name: torch.full((3,), number) for name, number in numbers.items()}
    if gather:
        return lambda: ops.gather_perturb(x, torch.ones_like(x), index, **bounds)
    return lambda: ops.perturb_(moved, gradient, x, index, **bounds)


def _step(method: str) -> Call:
    """One whole step of the digits recipe's network."""
    model = convert_dual_norm(models.create("wrn10_0.5", num_classes=CLASSES, in_channels=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    step = create_method(method, model, optimizer)
    images, labels = torch.rand(ROWS, 1, 8, 8), torch.arange(ROWS) % CLASSES
    return lambda: step(images, labels)


CALLS: dict[str, Callable[[], Call]] = {
    **_norms(),
    "loss_and_entropy": _loss_and_entropy,
    "select_topk": _select_topk,
    "gather_perturb": lambda: _perturb(gather=True),
    "perturb_": lambda: _perturb(gather=False),
    "a step of vanilla": lambda: _step("vanilla"),
    "a step of entprop": lambda: _step("entprop"),
}


@pytest.mark.parametrize("name", CALLS)
def test_call(name: str, benchmark: BenchmarkFixture) -> None:
    torch.manual_seed(0)
    call = CALLS[name]()
    call()
    benchmark(call)

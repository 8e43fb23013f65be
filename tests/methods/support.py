"""The small network, batches and snapshots that the tests of the methods share."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import Method, convert_dual_norm, create_method
from entprop_fast.reference import SCORES

CLASSES = 5
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
ROWS: dict[str, list[int]] = {  # of each forward in a step on 12 rows, with the default options
    "entprop": [12, 2],
    "vanilla": [12],
    "mixup": [12],
    "cutmix": [12],
    "mixprop": [12, 12],
    "fast_advprop": [10, 2, 2],
    "advprop": [12] * 7,
    "free_at": [12] * 4,
    "entprop_pipelined": [12],  # 14 where rows wait
    "noisymix": [12],
}
ONE_VIEW: dict[str, dict[str, Any]] = {"noisymix": {"jsd": 0.0}}  # unless a test gives three
ONE_NORM = ["vanilla", "mixup", "cutmix", "free_at", "noisymix"]
WITH_BACKWARD = [name for name in ROWS if name != "free_at"]  # its replays step
# Every method, and every option that changes what a step computes.
EVERY: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ROWS),
    ("entprop", {"k": 1.0, "mixup": 0.0}),
    ("entprop", {"k": 0.6, "n": 3, "accumulate": "all", "equalize": True}),
    ("entprop", {"aux_labels": "mixed", "aux_stats": "every", "n": 2}),
    ("entprop", {"selection": "global", "label_smoothing": 0.1, "max_grad_norm": 1.0}),
    ("entprop", {"normalization": ((0.5, 0.4, 0.3), (0.2, 0.2, 0.3))}),
    ("entprop", {"mixup": 0.0, "cutmix": 1.0, "n": 2, "score": "margin"}),
    ("entprop", {"mixup": 0.015, "k": 0.6, "n": 3, "attack_loss": "cw"}),
    ("entprop", {"k": 0.6, "n": 3, "attack_loss": "trades", "score": "random"}),
    *(("entprop", {"score": score}) for score in SCORES),
    ("entprop", {"norms": "affine", "k": 0.6, "n": 2}),
    ("entprop", {"norms": "statistics", "k": 0.6, "equalize": True}),
    ("noisymix", {"jsd": 12.0}),
    ("noisymix", {"jsd": 12.0, "mult_noise": 0.0, "sparsity": 0.0}),
    ("vanilla", {"jsd": 12.0}),
    ("entprop", {"jsd": 12.0, "k": 0.6, "n": 2, "accumulate": "all"}),
    ("advprop", {"n": 2, "random_start": False, "attack_loss": "cw"}),
    ("advprop", {"n": 2, "attack_mode": "eval", "attack_loss": "trades", "k": 0.5}),
    ("fast_advprop", {"k": 0.5, "score": "random"}),
    ("entprop_pipelined", {"k": 0.6, "aux_labels": "mixed", "score": "random"}),
    ("entprop_pipelined", {"mixup": 0.0, "cutmix": 1.0, "aux_labels": "mixed"}),
]
KN: dict[str, Any] = {"k": 0.6, "n": 3}
UNMIXED: dict[str, dict[str, Any]] = {
    name: {option: 0.0}
    for name, option in (
        ("entprop", "mixup"),
        ("mixup", "mixup"),
        ("mixprop", "mixup"),
        ("cutmix", "cutmix"),
        ("entprop_pipelined", "mixup"),
    )
}


def plain_network(*, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two convolutions with batch norm, and a linear head: images [B, 3, H, W] to 5 classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(3, 4, 3, padding=1, bias=False),
            bn1=nn.BatchNorm2d(4),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(4, 6, 3, stride=2),
            bn2=nn.BatchNorm2d(6),
            relu2=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            head=nn.Linear(6, CLASSES),
        )
        return nn.Sequential(layers).to(dtype)


def dual_network(*, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """`plain_network` converted; main and auxiliary halves hold different affine parameters."""
    model = convert_dual_norm(plain_network(seed=seed, dtype=dtype))
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "bn" in name:
                parameter.add_(torch.rand(parameter.shape, generator=source) - 0.5)
    return model


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def ending_in(function: Callable[[Tensor], Any]) -> nn.Sequential:
    """A `dual_network` whose logits go through `function`."""
    return nn.Sequential(dual_network(), Lambda(function))


class Counts(nn.Module):
    """Scaled cross-entropy with a counter changed in place, and one replaced at each call."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.reduction = reduction
        self.calls: Tensor
        self.replaced: Tensor
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        self.replaced = self.replaced + 1
        return nn.functional.cross_entropy(self.scale * logits, labels, reduction=self.reduction)


def frozen_network() -> nn.Sequential:
    """Norms in eval mode: what a row gives does not depend on the rows beside it."""
    model = dual_network()
    for name in ("bn1", "bn2"):
        model.get_submodule(name).eval()
    return model


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)


def make(name: str = "entprop", *, model: nn.Module | None = None, **options: Any) -> Method:
    """A method on `model` (or a fresh float64 `dual_network`) with SGD, for one view of a row."""
    model = dual_network() if model is None else model
    return create_method(name, model, sgd(model), **ONE_VIEW.get(name, {}) | options)


def pair(name: str = "entprop", *models: nn.Module, **options: Any) -> tuple[Method, Method]:
    """Two methods that draw the same numbers, on these models or on networks alike."""
    one, other = (
        make(name, model=model, generator=generator(5), **options)
        for model in models or (None,) * 2
    )
    return one, other


def batch(
    rows: int = 12,
    *,
    seed: int = 0,
    size: int = 6,
    dtype: torch.dtype = torch.float64,
    views: int = 1,
) -> tuple[Tensor, Tensor]:
    """Random images in [0, 1], of so many views of each row, and labels in [0, CLASSES)."""
    source = torch.Generator().manual_seed(1000 + seed)
    images = torch.rand(rows, 3, size, size, generator=source, dtype=torch.float64).to(dtype)
    labels = torch.randint(CLASSES, (rows,), generator=source)
    if views > 1:
        moves = torch.rand(views, *images.shape, generator=source, dtype=torch.float64)
        moves[0] = 0
        images = torch.cat([(0.7 * images + 0.3 * move.to(dtype)) for move in moves])
    return images, labels


def batch_for(method: Method, rows: int = 12, **settings: Any) -> tuple[Tensor, Tensor]:
    """A `batch` with the views that the method takes."""
    return batch(rows, views=method.views, **settings)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {
        name: None if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }


def everything(method: Method) -> dict[str, Any]:
    """All that a refused call must leave as it was, copied."""
    modules = [method.model] + ([method.criterion] if method.criterion is not None else [])
    drawn = method.generator
    return {
        "parameters": [parameters(module) for module in modules],
        "buffers": [statistics(module) for module in modules],
        "gradients": [gradients(module) for module in modules],
        "optimizer": [
            {key: v.clone() if isinstance(v, Tensor) else v for key, v in state.items()}
            for state in method.optimizer.state.values()
        ],
        "flags": [(m.training, m.__dict__.get("num_main")) for m in method.model.modules()],
        "tracking": [getattr(m, "track_running_stats", None) for m in method.model.modules()],
        "default generator": torch.get_rng_state(),
        "generator": None if drawn is None else drawn.get_state(),
        "rows": method.rows,
        "method": method.state_dict(),
    }


def assert_equal(actual: Any, expected: Any, *, tolerance: float = 0) -> None:
    """Exactly equal, tensors bit for bit or within `tolerance`, in nested dicts and lists."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_equal(actual[key], expected[key], tolerance=tolerance)
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_equal(one, other, tolerance=tolerance)
    elif isinstance(expected, Tensor):
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    else:
        assert actual == expected


def close(actual: Any, expected: Any) -> None:
    assert_equal(actual, expected, tolerance=1e-12)


def left(method: Method) -> list[Any]:
    """What steps leave in the model, without names; in `selected_index` and `perturbed`."""
    found = [read(method.model).values() for read in (parameters, statistics, gradients)]
    return [*map(list, found), method.selected_index, method.perturbed]


def assert_same_steps(one: Method, other: Method, tolerance: float = 0) -> None:
    for i in range(2):
        results = [list(method(*batch(seed=i))) for method in (one, other)]
        assert_equal(*results, tolerance=tolerance)
    assert_equal(left(one), left(other), tolerance=tolerance)


def refuse(method: Method, images: Any, labels: Any, match: str) -> None:
    """Called or run backward, the batch is a ValueError or TypeError, and nothing has changed."""
    before = everything(method)
    for call in (method, method.backward) if method.name in WITH_BACKWARD else (method,):
        with pytest.raises((ValueError, TypeError), match=match) as found:
            call(images, labels)
        assert "\n" not in str(found.value)
        assert_equal(everything(method), before)


def normalised(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v, dtype=images.dtype).view(3, 1, 1) for v in (MEAN, STD))
    return (images - mean) / std

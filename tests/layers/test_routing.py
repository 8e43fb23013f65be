"""`route`: what it takes, how it nests, whom it reaches, and what it leaves behind."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from entprop_fast import DualBatchNorm2d, DualLayerNorm, convert_dual_norm, route
from entprop_fast.layers.routing import Target
from tests.layers import oracle


class Network(nn.Module):
    """Two dual norms and a 1-d batch norm that knows no routes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = DualBatchNorm2d(4)
        self.block = nn.Sequential(nn.ReLU(), DualBatchNorm2d(4))
        self.head = nn.BatchNorm1d(4)
        oracle.randomize(self)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.block(self.norm(self.conv(x))).mean((2, 3)))
        return y


def images(rows: int = 6) -> Tensor:
    return torch.randn(rows, 3, 4, 4)


def halves_used(model: nn.Module, x: Tensor) -> set[str]:
    """Which halves of its dual norms `model` runs through now, by their running statistics."""
    before = oracle.snapshot(model)
    model(x)
    names = {name for name in oracle.moved(model, before) if "head" not in name}
    return {"aux" if "aux_bn" in name else "main" for name in names}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("main", {"main"}),
        ("aux", {"aux"}),
        (0, {"aux"}),
        (6, {"main"}),
        (2, {"main", "aux"}),
    ],
)
def test_targets(target: Target, expected: set[str]) -> None:
    model = Network()
    with route(model, target):
        assert halves_used(model, images()) == expected
    assert halves_used(model, images()) == {"main"}


NO_TARGETS = [True, False, "foo", "", "MAIN", 1.0, None, np.array([1, 2]), torch.tensor(2), [2]]
REFUSED: list[tuple[nn.Module, tuple[Any, ...], type[Exception], str]] = [
    *((Network(), (target,), TypeError, "^target=") for target in NO_TARGETS),
    (Network(), (1, 0), ValueError, "^batch=0"),
    (Network(), (1, -2), ValueError, "^batch=-2"),
    (Network(), (1, True), TypeError, "^batch=True"),
    (Network(), (1, 2.0), TypeError, "^batch=2.0"),
    (nn.Conv2d(3, 3, 1), ("main",), ValueError, "^model .*convert_dual_norm"),
    (nn.BatchNorm2d(3), ("main",), ValueError, "^model .*convert_dual_norm"),
]
REFUSED_AT_THE_FORWARD: list[tuple[nn.Module, tuple[Any, ...], Tensor, str]] = [
    (Network(), (-1,), images(), r"target=-1 .*\[0, 6\]"),
    (Network(), (7,), images(), r"target=7 .*\[0, 6\]"),
    (DualLayerNorm(5), (1, 4), torch.randn(6, 5), r"1 of batch=4 .* 6 rows"),
    (DualLayerNorm(5), (5, 4), torch.randn(8, 5), r"target=5 .*\[0, 4\]"),
]


@pytest.mark.parametrize(("model", "arguments", "error", "named"), REFUSED)
def test_what_route_refuses(
    model: nn.Module, arguments: tuple[Any, ...], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named), route(model, *arguments):
        pass
    assert not isinstance(model, Network) or halves_used(model, images()) == {"main"}


@pytest.mark.parametrize(("model", "arguments", "x", "named"), REFUSED_AT_THE_FORWARD)
def test_rows_that_do_not_fit_are_refused_at_the_forward(
    model: nn.Module, arguments: tuple[Any, ...], x: Tensor, named: str
) -> None:
    with route(model, *arguments), pytest.raises(ValueError, match=named):
        model(x)
    assert not isinstance(model, Network) or halves_used(model, x) == {"main"}


def test_routes_nest_and_the_innermost_wins() -> None:
    model = Network()
    with route(model, "aux"):
        with route(model, 3):
            with pytest.raises(ZeroDivisionError), route(model, "main"):
                assert halves_used(model, images()) == {"main"}
                raise ZeroDivisionError
            assert halves_used(model, images()) == {"main", "aux"}
        assert halves_used(model, images()) == {"aux"}
    assert halves_used(model, images()) == {"main"}


def test_a_part_of_a_model_can_be_routed_alone() -> None:
    model = Network()
    with route(model.block, "aux"):
        before = oracle.snapshot(model)
        model(images())
    moved = oracle.moved(model, before)
    assert "norm.running_mean" in moved and "norm.aux_bn.running_mean" not in moved
    assert "block.1.aux_bn.running_mean" in moved and "block.1.running_mean" not in moved


@pytest.mark.parametrize("m", [0, 1, 3])
@pytest.mark.parametrize("windows", [1, 4])
def test_batch_scales_the_rows_of_a_layer_that_sees_windows(m: int, windows: int) -> None:
    norm = DualLayerNorm(5)
    oracle.randomize(norm)
    x = torch.randn(3, windows, 7, 5)
    with route(norm, m):
        expected = norm(x)
    with route(norm, m, batch=3):
        y = norm(x.flatten(0, 1)).unflatten(0, (3, windows))
    assert torch.equal(y, expected)


@pytest.mark.parametrize("target", ["aux", 0])
def test_plain_batch_norms_use_batch_statistics_without_moving_their_own(target: Target) -> None:
    model, x = Network(), images()
    with route(model, target):
        y = model(x)
        before = oracle.snapshot(model.head)
        assert not oracle.moved(model.head, before)
        model.head.running_mean.add_(5)  # type: ignore[union-attr]
        assert torch.equal(model(x), y)
    before = oracle.snapshot(model.head)
    model(x)
    assert oracle.moved(model.head, before) == {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }


@pytest.mark.filterwarnings("ignore:Using `torch.compile:UserWarning")
def test_plain_batch_norms_in_a_compiled_model() -> None:
    model, x = Network(), images()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    compiled(x)
    before = oracle.snapshot(model.head)
    with route(model, "aux"):
        assert torch.equal(compiled(x), model(x))
    assert not oracle.moved(model.head, before)
    compiled(x)
    assert oracle.moved(model.head, before)


@pytest.mark.parametrize("inner", ["main", 3])
def test_plain_batch_norms_move_in_a_main_route_inside(inner: Target) -> None:
    model = Network()
    with route(model, "aux"):
        before = oracle.snapshot(model.head)
        with route(model, inner):
            model(images())
            assert oracle.moved(model.head, before)
            with route(model, "aux"):
                before = oracle.snapshot(model.head)
                model(images())
        model(images())
        assert not oracle.moved(model.head, before)
    assert model.head.track_running_stats


def test_plain_batch_norms_that_the_user_froze_stay_frozen() -> None:
    model = Network()
    model.head.eval()
    untracked = convert_dual_norm(nn.Sequential(nn.BatchNorm2d(4), nn.Flatten()))
    untracked.append(nn.BatchNorm1d(64, track_running_stats=False))
    before, x = oracle.snapshot(model.head), images()
    for target in ("aux", "main"):
        with route(model, target):
            model(x)
        with route(untracked, "aux"), route(untracked, target):
            untracked(torch.randn(5, 4, 4, 4))
    assert not oracle.moved(model.head, before)
    assert not model.head.training and not untracked[2].track_running_stats

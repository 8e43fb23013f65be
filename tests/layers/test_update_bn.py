"""Running statistics estimated anew, of one half by torch's `update_bn`, of both by ours."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.optim.swa_utils import update_bn as update_one

from entprop_fast import DualBatchNorm2d, convert_dual_norm, route, update_bn
from entprop_fast.layers import DualSyncBatchNorm
from entprop_fast.layers.routing import Target
from tests.layers import oracle

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
MAIN, AUX, HEAD = ({f"{norm}.{s}" for s in STATISTICS} for norm in ("0", "0.aux_bn", "2"))


def network(dual: bool = True) -> Any:
    """Return a dual norm, and a batch norm that knows no routes."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(2), oracle.OwnBatchNorm1d(3))
    if dual:
        with pytest.warns(UserWarning, match="1 OwnBatchNorm1d"):
            convert_dual_norm(model)
    oracle.randomize(model)
    return model


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(6, 3, 4, 4, generator=generator) * 3 + i for i in range(4)]


def assert_estimated(norm: Any) -> None:
    """`norm` sees the batches themselves."""
    mean = torch.stack([x.mean((0, 2, 3)) for x in batches()]).mean(0)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in batches()]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    assert norm.num_batches_tracked == 4


@pytest.mark.parametrize(
    ("target", "expected"),
    [("main", MAIN | HEAD), ("aux", AUX), (0, AUX)],
    ids=["main", "aux", "0"],
)
def test_torch_s_under_a_route_serves_one_half(target: Any, expected: set[str]) -> None:
    """FOUND W5: it reset both halves and estimated one, the other was at chance."""
    model = network()
    before = oracle.snapshot(model)
    with route(model, target):
        update_one(batches(), model)
    assert oracle.moved(model, before) == expected
    assert_estimated(model[0] if target == "main" else model[0].aux_bn)
    assert model[0].momentum == model[0].aux_bn.momentum == 0.1


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(3), nn.SyncBatchNorm(3)], ids=["2d", "sync"])
def test_what_reset_running_stats_resets(norm: nn.Module) -> None:
    """FOUND W5: without a route both halves, inside one those that it uses."""
    model: Any = convert_dual_norm(nn.Sequential(norm))
    main, aux = ({f"0.{half}{name}" for name in STATISTICS} for half in ("", "aux_bn."))
    targets: list[tuple[Target, set[str]]] = [("main", main), ("aux", aux), (0, aux)]
    for target, expected in (*targets, (2, main | aux)):
        oracle.randomize(model)
        before = oracle.snapshot(model)
        with route(model, target):
            with route(model, "main"), route(model, "aux"):
                pass
            model[0].reset_running_stats()
            assert oracle.moved(model, before) == expected, target
    oracle.randomize(model)
    before = oracle.snapshot(model)
    model[0].reset_running_stats()
    assert oracle.moved(model, before) == main | aux
    oracle.randomize(model)
    model[0].aux_bn.reset_running_stats()
    assert model[0].aux_bn.num_batches_tracked == 0 and model[0].num_batches_tracked == 3


def test_a_copy_made_inside_a_route_is_reset_whole() -> None:
    """FOUND W5: a neighbour, the route belongs to the original."""
    model = network()
    with route(model, "main"):
        twin = copy.deepcopy(model)
        before = oracle.snapshot(twin)
        twin[0].reset_running_stats()
    assert oracle.moved(twin, before) == MAIN | AUX


def test_torch_s_without_a_route_is_not_silent() -> None:
    """FOUND W5: both were reset, the main ones estimated; using the others warns, once."""
    model, x = network(), batches()[0]
    update_one(batches(), model)
    assert_estimated(model[0])
    model.eval()(x)
    with pytest.warns(UserWarning, match=r"entprop_fast\.update_bn") as caught:
        for _ in range(2):
            with route(model, "aux"):
                model(x)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "estimate",
    [
        lambda model: update_bn(batches(), model),
        lambda model: (update_one(batches(), model), routed(model)),  # type: ignore[func-returns-value]
        lambda model: model[0].reset_parameters(),
        lambda model: model.load_state_dict(network().state_dict()),
    ],
    ids=["ours", "torch's, both routes", "a fresh norm", "a checkpoint"],
)
def test_nothing_to_warn_of(estimate: Any) -> None:
    """FOUND W5: a neighbour."""
    model = network()
    model[0].reset_running_stats()
    estimate(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with route(model.eval(), "aux"):
            model(batches()[0])


def routed(model: nn.Module) -> None:
    with route(model, "aux"):
        update_one(batches(), model)


@pytest.mark.parametrize("with_labels", [False, True], ids=["images", "images and labels"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_ours_estimates_both_halves(with_labels: bool, training: bool) -> None:
    """FOUND W5: in one pass over the loader, which may be a generator."""
    model = network().train(training)
    model[1].training = not training
    flags = [module.training for module in model.modules()]
    loader: Iterator[Any] = ((x, torch.zeros(6)) if with_labels else x for x in batches())
    update_bn(loader, model)
    for norm in (model[0], model[0].aux_bn):
        assert_estimated(norm)
        assert norm.momentum == 0.1
    assert model[2].num_batches_tracked == 4
    assert flags == [module.training for module in model.modules()]
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_ours_on_a_plain_model_is_torch_s() -> None:
    """FOUND W5: a neighbour."""
    ours = network(dual=False)
    theirs = copy.deepcopy(ours)
    update_bn(batches(), ours)
    update_one(batches(), theirs)
    assert not oracle.moved(ours, oracle.snapshot(theirs))


def test_averaged_weights_synchronised_norms_and_other_momenta() -> None:
    """FOUND W5: a neighbour."""
    inner: Any = convert_dual_norm(nn.Sequential(nn.SyncBatchNorm(3), nn.LayerNorm(4)))
    inner[0].momentum, inner[0].aux_bn.momentum = 0.3, None
    model = AveragedModel(inner)
    update_bn(batches(), model)
    norm: Any = model.get_submodule("module.0")
    assert isinstance(norm, DualSyncBatchNorm)
    assert_estimated(norm)
    assert_estimated(norm.aux_bn)
    assert norm.momentum == 0.3 and norm.aux_bn.momentum is None


def failing() -> Iterator[Tensor]:
    yield batches()[0]
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("loader", "error", "message"),
    [
        ([], ValueError, "loader"),
        ([None], TypeError, "loader"),
        ([batches()[0], {"image": batches()[1]}], TypeError, "loader"),
        ([batches()[0], batches()[1][:, :2]], ValueError, "expected shape"),
        (failing(), OSError, "disk"),
    ],
    ids=["empty", "None", "a dict", "other channels", "failing"],
)
def test_what_fails_changes_nothing(loader: Any, error: type[Exception], message: str) -> None:
    """FOUND W5: a neighbour, statistics are not left reset."""
    model = network().eval()
    before = oracle.snapshot(model)
    with pytest.raises(error, match=message):
        update_bn(loader, model)
    assert not oracle.moved(model, before)
    assert not any(module.training for module in model.modules())
    assert model[0].momentum == model[0].aux_bn.momentum == model[2].momentum == 0.1
    assert isinstance(model[0], DualBatchNorm2d) and not model[0].inside


def test_images_stay_where_a_model_writes_into_them() -> None:
    """FOUND W9, a neighbour: the second half would be estimated from what the first left."""

    class Shifts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = DualBatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x.sub_(0.5))
            return y

    model, images = Shifts(), torch.rand(8, 3, 4, 4)
    before = images.clone()
    update_bn([images, images], model)
    assert torch.equal(images, before)
    torch.testing.assert_close(model.norm.running_mean, model.norm.aux_bn.running_mean)

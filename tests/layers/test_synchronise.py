"""synchronise_norms: what it converts and keeps; alone, a synchronised norm is the plain one."""

import copy
import io
import pickle
import warnings
from typing import Any

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.utils import parametrize

from entprop_fast import (
    convert_dual_norm,
    models,
    norm_report,
    route,
    strip_auxiliary,
    synchronise_norms,
)
from entprop_fast.layers import DualBatchNorm2d, DualSyncBatchNorm, Synchronised, fused_norms
from tests.layers import oracle
from tests.processes import group_of_one


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def network(dual: bool = True) -> Any:
    layers = [
        nn.Conv2d(2, 4, 1),
        nn.BatchNorm2d(4, eps=0.1, momentum=0.3),
        nn.ReLU(),
        oracle.Sub(4),
        nn.Flatten(2),
        nn.BatchNorm1d(4),
        nn.Unflatten(2, (1, 3, 3)),
        nn.BatchNorm3d(4),
        nn.GroupNorm(2, 4),
    ]
    found: Any = nn.Sequential(*layers)
    oracle.randomize(found)
    return convert_dual_norm(found) if dual else found


@pytest.mark.parametrize("dual", [True, False])
def test_keeps_modules_tensors_keys_and_flags(dual: bool) -> None:
    model = network(dual)
    model[3].eval()
    modules, before = list(model.modules()), oracle.snapshot(model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    flags = [module.training for module in modules]
    assert synchronise_norms(model) is model
    assert synchronise_norms(model) is model  # once is enough
    assert all(one is other for one, other in zip(model.modules(), modules, strict=True))
    assert [module.training for module in model.modules()] == flags
    now = dict(model.named_parameters()) | dict(model.named_buffers())
    assert all(now[name] is tensor for name, tensor in tensors.items())
    assert model.state_dict().keys() == before.keys()
    norms = [model[place] for place in (1, 3, 5, 7)]
    assert all(isinstance(norm, Synchronised) for norm in norms)
    assert not isinstance(model[8], Synchronised)
    assert model[1].momentum == 0.3 and model[1].eps == 0.1
    if dual:
        assert [type(norm).__name__ for norm in norms] == [
            "DualSyncBatchNorm2d",
            "DualSyncSub",
            "DualSyncBatchNorm1d",
            "DualSyncBatchNorm3d",
        ]
        assert all(isinstance(norm.aux_bn, Synchronised) for norm in norms)


@pytest.mark.parametrize("dual", [True, False])
def test_stripped_it_is_plain(dual: bool) -> None:
    plain = network(dual=False)
    model = strip_auxiliary(synchronise_norms(network(dual), process_group=object()))
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert not any("process_group" in vars(module) for module in model.modules())


@pytest.mark.parametrize("dual", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_the_plain_norm_to_the_bit(dual: bool, training: bool) -> None:
    plain = network(dual).train(training)
    model = synchronise_norms(copy.deepcopy(plain))
    x = torch.randn(4, 2, 3, 3)
    with group_of_one():
        for target in (4, 1, 0) if dual else (None,):
            with route(plain, target) if dual else warnings.catch_warnings():  # type: ignore[arg-type]
                expected = plain(x)
            with route(model, target) if dual else warnings.catch_warnings():  # type: ignore[arg-type]
                assert torch.equal(model(x), expected)
    assert not oracle.moved(model, oracle.snapshot(plain))


def test_copies_and_pickles() -> None:
    model = synchronise_norms(network())
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for twin in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
    ):
        assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]


@pytest.mark.parametrize("first", [convert_dual_norm, synchronise_norms])
def test_either_conversion_may_come_first(first: Any) -> None:
    second = synchronise_norms if first is convert_dual_norm else convert_dual_norm
    model = second(first(network(dual=False)))
    expected = synchronise_norms(network())
    assert [type(m) for m in model.modules()] == [type(m) for m in expected.modules()]


def test_a_group_is_that_of_both_halves() -> None:
    group = object()
    norm: Any = synchronise_norms(convert_dual_norm(nn.BatchNorm2d(2)), process_group=group)
    assert norm.process_group is group and norm.aux_bn.process_group is group


def test_torch_s_own_keep_their_group() -> None:
    group: Any = object()
    norm: Any = synchronise_norms(nn.Sequential(nn.SyncBatchNorm(2, process_group=group)))[0]
    assert isinstance(norm, Synchronised) and norm.process_group is group
    dual: Any = convert_dual_norm(nn.SyncBatchNorm(2))
    assert type(dual) is DualSyncBatchNorm and isinstance(dual, Synchronised)
    assert type(strip_auxiliary(dual)) is nn.SyncBatchNorm and dual.process_group is None


def test_a_bare_norm_and_a_model_without_one() -> None:
    norm: Any = nn.BatchNorm2d(2)
    assert synchronise_norms(norm) is norm and isinstance(norm, Synchronised)
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert synchronise_norms(model) is model


def test_names_what_it_leaves() -> None:
    model = nn.Sequential(oracle.OwnBatchNorm1d(2), nn.BatchNorm1d(2))
    with pytest.warns(UserWarning, match="1 OwnBatchNorm1d .0."):
        synchronise_norms(model)
    assert type(model[0]) is oracle.OwnBatchNorm1d and isinstance(model[1], Synchronised)
    with pytest.raises(ValueError, match="LazyBatchNorm2d"):
        synchronise_norms(nn.Sequential(nn.LazyBatchNorm2d()))


def test_timm_s_dual_norm_keeps_its_activation() -> None:
    plain: Any = convert_dual_norm(nn.Sequential(BatchNormAct2d(2)))
    model = synchronise_norms(copy.deepcopy(plain))
    x = torch.randn(3, 2, 4, 4)
    assert isinstance(model[0], Synchronised) and torch.equal(model(x), plain(x))
    assert type(strip_auxiliary(model)[0]) is BatchNormAct2d


def test_a_parametrised_norm() -> None:
    model = network()
    parametrize.register_parametrization(model[1], "weight", Doubled())
    expected = model(x := torch.randn(4, 2, 3, 3))
    weight = model[1].weight.clone()
    assert isinstance(synchronise_norms(model)[1], Synchronised)
    assert torch.equal(model[1].weight, weight)
    assert model(x).shape == expected.shape


def test_our_networks_and_fused_blocks_take_it() -> None:
    own = models.create("resnet18", num_classes=3)
    plain = convert_dual_norm(own)
    model = synchronise_norms(copy.deepcopy(plain))
    x = torch.randn(4, 3, 32, 32)
    with route(model, 2), route(plain, 2):
        assert torch.equal(model(x), plain(x))
    fused = convert_dual_norm(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), fuse=True)
    synchronise_norms(fused)
    assert isinstance(fused[0], DualBatchNorm2d)
    assert [one.pattern for one in fused_norms(fused)] == ["relu"]


def test_the_report_names_the_plain_norm(capsys: pytest.CaptureFixture[str]) -> None:
    entries = norm_report(synchronise_norms(network()))
    assert [entry.norm for entry in entries][:2] == ["BatchNorm2d", "Sub"]
    assert all(entry.state == "dual" for entry in entries)

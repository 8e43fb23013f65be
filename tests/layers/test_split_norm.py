"""timm's split norms become ours whole: their first auxiliary norm is the half."""

import copy
import warnings
from typing import Any

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, SplitBatchNorm2d
from torch import nn

from entprop_fast import DualBatchNorm2d, convert_dual_norm, create_method, route, strip_auxiliary
from entprop_fast.layers import DualSyncBatchNorm
from tests.layers import oracle

convert_splitbn_model: Any = timm.layers.convert_splitbn_model
to_sync: Any = nn.SyncBatchNorm.convert_sync_batchnorm


def plain_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4),
        BatchNormAct2d(4, act_layer=nn.SiLU),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def split_network(splits: int = 2) -> Any:
    model = convert_splitbn_model(plain_network(), splits)
    oracle.randomize(model)
    assert type(model[1]) is type(model[2]) is SplitBatchNorm2d
    return model


def quietly_dual(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return convert_dual_norm(model)


def test_converted_whole() -> None:
    """FOUND W4: the norms inside the split norm's own list became dual, and trained nonsense."""
    split = split_network()
    modules = {name: split.get_submodule(f"{name}.aux_bn")[0] for name in ("1", "2")}
    parameters = dict(split.named_parameters())
    main, x = copy.deepcopy(split).eval(), torch.randn(6, 3, 4, 4)
    dual = quietly_dual(split)
    assert not any(isinstance(module, SplitBatchNorm2d) for module in dual.modules())
    assert sum(isinstance(module, DualBatchNorm2d) for module in dual.modules()) == 2
    for name, half in modules.items():
        assert dual.get_submodule(f"{name}.aux_bn") is half
    for name, parameter in dual.named_parameters():
        assert parameter is parameters[name.replace("aux_bn.", "aux_bn.0.")]
    assert torch.equal(dual.eval()(x), main(x))
    quietly_dual(dual)


def test_each_half_gives_what_timm_s_split_gave() -> None:
    """FOUND W4: timm trains the second part of a batch through its auxiliary norms."""
    split = split_network()
    dual, x = quietly_dual(copy.deepcopy(split)), torch.randn(6, 3, 4, 4)
    with route(dual, 3):
        assert torch.equal(dual(x), split(x))
    for name, value in dual.state_dict().items():
        assert torch.equal(value, split.state_dict()[name.replace("aux_bn.", "aux_bn.0.")])


def test_it_trains_and_strips_to_what_timm_made_it_from() -> None:
    """FOUND W4: the keys, the classes and the activation are the plain network's."""
    dual, plain = quietly_dual(split_network()), plain_network()
    method = create_method("entprop", dual, torch.optim.SGD(dual.parameters(), 0.1))
    assert method(torch.rand(8, 3, 4, 4), torch.randint(0, 3, (8,))).loss.isfinite()
    expected, x = dual.eval(), torch.randn(4, 3, 4, 4)
    y = expected(x)
    strip_auxiliary(dual)
    assert torch.equal(dual(x), y)
    plain.load_state_dict(dual.state_dict())
    assert torch.equal(plain.eval()(x), y)
    for module, fresh in zip(dual.modules(), plain.modules(), strict=True):
        assert type(module) is type(fresh) and vars(module).keys() == vars(fresh).keys()


def test_more_than_one_auxiliary_norm() -> None:
    """FOUND W4: a neighbour, what is dropped is named."""
    model = split_network(3)
    halves = [norm.aux_bn[0] for norm in model[1:3]]
    with pytest.warns(UserWarning, match="dropped: 2 SplitBatchNorm2d") as caught:
        convert_dual_norm(model)
    assert len(caught) == 1
    assert [norm.aux_bn for norm in model[1:3]] == halves


def test_synchronised_by_torch() -> None:
    """FOUND W4: a neighbour, torch's converter keeps the list and loses the split."""
    model = to_sync(convert_splitbn_model(nn.Sequential(nn.BatchNorm2d(3)), 2))
    half = model[0].aux_bn[0]
    quietly_dual(model)
    assert type(model[0]) is DualSyncBatchNorm and model[0].aux_bn is half


def test_a_child_of_that_name_that_is_no_norm() -> None:
    """FOUND W4: a neighbour."""
    norm: Any = nn.BatchNorm2d(3)
    norm.aux_bn = nn.Linear(3, 3)
    with pytest.raises(ValueError, match="1 BatchNorm2d with a child aux_bn of its own"):
        convert_dual_norm(norm)
    assert type(norm) is nn.BatchNorm2d


def test_a_dual_norm_that_was_split_afterwards() -> None:
    """FOUND W4, a neighbour: the half had been given halves of its own."""
    dual = convert_dual_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    split = timm.layers.convert_splitbn_model(dual, 2)  # type: ignore[no-untyped-call]
    again = convert_dual_norm(split)
    names = {name for name, _ in again.named_parameters()}
    assert names == {"0.weight", "0.bias", "1.weight", "1.bias", "1.aux_bn.weight", "1.aux_bn.bias"}

"""`also`: the halves of further classes are copies; and what derived classes keep of their norm."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers.grn import GlobalResponseNorm
from torch import Tensor, nn

from entprop_fast import convert_dual_norm, create_method, norm_report, route, strip_auxiliary
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.routing import frozen_statistics
from tests.layers import oracle


class Mine(nn.Module):
    """With a norm and a linear layer of its own inside, and statistics."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.LayerNorm(4)
        self.mix = nn.Linear(4, 4)
        self.act = nn.SiLU()
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.add_(x.detach().mean(0))
        y: Tensor = self.act(self.mix(self.inner(x)) + self.seen)
        return y


class MyNorm(Mine):
    """Its name says what it is."""


def images() -> Tensor:
    return torch.randn(5, 4)


@pytest.mark.parametrize("cls", [Mine, MyNorm])
def test_the_half_is_a_copy_of_the_whole_module(cls: Any) -> None:
    plain = nn.Sequential(nn.LayerNorm(4), cls())
    oracle.randomize(plain)
    model: Any = convert_dual_norm(copy.deepcopy(plain), also=(cls,))
    assert type(model[1]).__name__ == f"Dual{cls.__name__}"
    assert type(model[1].inner) is nn.LayerNorm  # a part of its half, no dual norm of its own
    assert convert_dual_norm(model, also=cls) is model  # and once is enough
    oracle.randomize(model[1].aux_norm)
    model.eval()
    main, aux = copy.deepcopy(plain[1]).eval(), copy.deepcopy(plain[1]).eval()
    aux.load_state_dict(model[1].aux_norm.state_dict())
    x = images()
    with route(model[1], 2):
        torch.testing.assert_close(model[1](x), torch.cat((main(x[:2]), aux(x[2:]))))
    assert {*model[1].main_parameters()} == {
        p for name, p in model[1].named_parameters() if "aux" not in name
    }
    model.load_state_dict(plain.state_dict())
    for name, value in plain[1].state_dict().items():
        assert torch.equal(model[1].aux_norm.state_dict()[name], value)
    stripped = strip_auxiliary(model)
    assert torch.equal(stripped(x), plain.eval()(x))
    assert type(stripped[1]) is cls


def test_statistics_of_the_half_alone_are_held() -> None:
    norm: Any = convert_dual_norm(Mine(), also=Mine)
    before = oracle.snapshot(norm)
    with route(norm, "aux"):
        with frozen_statistics([norm.aux]):
            norm(images())
        assert not oracle.moved(norm, before)
        norm(images())
    assert oracle.moved(norm, before) == {"aux_norm.seen"}


def test_a_global_response_norm_on_request() -> None:
    model = timm.models.convnext.ConvNeXt(depths=(1,) * 4, dims=(8,) * 4, use_grn=True)
    with pytest.warns(UserWarning, match="4 GlobalResponseNorm .*also="):
        convert_dual_norm(model)
    convert_dual_norm(model, also=GlobalResponseNorm)
    grns = [m for m in model.modules() if isinstance(m, GlobalResponseNorm)]
    assert len(grns) == 8 and sum(isinstance(m, DualNorm) for m in grns) == 4


@pytest.mark.parametrize(
    ("also", "error"),
    [
        ((nn.LayerNorm(4),), TypeError),
        ((int,), TypeError),
        ("GRN", TypeError),
        ((GlobalResponseNorm,), ValueError),  # none in the model
    ],
    ids=str,
)
def test_what_also_refuses(also: Any, error: type[Exception]) -> None:
    model = nn.Sequential(nn.LayerNorm(4))
    with pytest.raises(error, match="also"):
        convert_dual_norm(model, also=also)
    assert type(model[0]) is nn.LayerNorm


def test_a_subclass_keeps_its_own_ways() -> None:
    """As one that stays in eval mode: its auxiliary half does, too."""

    class Still(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> "Still":
            super().train(False)
            return self

    model: Any = convert_dual_norm(nn.Sequential(Still(4))).train()
    assert isinstance(model[0], Still) and not model[0].training
    assert isinstance(model[0].aux_bn, Still) and not model[0].aux_bn.training


def test_the_halves_share_an_activation() -> None:
    """It is one module, also after it was replaced; a hook on it sees both halves' rows."""
    model: Any = convert_dual_norm(nn.Sequential(timm.layers.GroupNormAct(4, 2)))
    assert "aux_norm.act" not in dict(model[0].named_modules())
    seen: list[int] = []
    model[0].act = nn.Tanh()
    model[0].act.register_forward_hook(lambda _, __, y: seen.append(len(y)))
    with route(model, 2):
        y = model(torch.randn(5, 4, 3, 3))
    assert seen == [2, 3] and y.abs().max() < 1
    twin = copy.deepcopy(model)
    assert twin[0].aux_norm.act is twin[0].act and twin[0].act is not model[0].act


def test_instance_norms_reset_the_routed_half() -> None:
    norm: Any = convert_dual_norm(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))
    halves: list[tuple[Any, Any]] = [("main", norm), ("aux", norm.aux_norm)]
    for target, reset in halves:
        oracle.randomize(norm)
        with route(norm, target):
            norm.reset_running_stats()
        for half in (norm, norm.aux_norm):
            assert (half.running_mean == 0).all() == (half is reset)
    norm.reset_parameters()
    assert (norm.weight == 1).all() and (norm.aux_norm.weight == 1).all()


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(4),
        timm.layers.FrozenBatchNormAct2d(4),
        oracle.OwnBatchNorm1d(4),
        GlobalResponseNorm(4),
        nn.GroupNorm(2, 4).requires_grad_(False),
        nn.Conv2d(4, 4, 1),
    )
    states = ["shared", "frozen", "shared", "shared", "frozen"]
    assert [entry.state for entry in norm_report(model)] == states
    with pytest.warns(UserWarning, match="OwnBatchNorm1d"):
        convert_dual_norm(model)
    capsys.readouterr()
    entries = norm_report(model)
    assert [(e.name, e.norm, e.state, e.note) for e in entries] == [
        ("0", "BatchNorm2d", "dual", "aux_bn"),
        ("1", "FrozenBatchNormAct2d", "frozen", "aux_bn"),
        ("2", "OwnBatchNorm1d", "shared", "with a forward of its own"),
        ("3", "GlobalResponseNorm", "shared", "dual on request"),
        ("4", "GroupNorm", "frozen", "aux_norm"),
    ]
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["0", "1", "2", "3", "4", "5"]
    assert printed[-1] == "5 norms: 1 dual, 2 frozen, 2 shared"
    assert norm_report(nn.Conv2d(1, 1, 1)) == []


def test_the_page_s_example_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "layers.md").read_text()
    code, shown = re.findall(r"^```(?:python|text)\n(.*?)^```", page, re.M | re.S)
    exec(code, {"__name__": "example"})
    assert capsys.readouterr().out == shown


def test_equalised_gradients_divide_by_the_rows_of_each_half() -> None:
    """A copied child counts with its half."""
    norm = timm.layers.GroupNormAct(4, 2, act_layer=nn.PReLU)
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Flatten(), nn.Linear(64, 3))
    convert_dual_norm(model)
    act, twin = model[1].act.weight, model[1].aux_norm.act.weight
    step = create_method(
        "entprop", model, torch.optim.SGD(model.parameters(), 0.1), k=0.5, equalize=True, mixup=0.0
    )
    step(torch.rand(8, 3, 6, 6), torch.arange(8) % 3)
    assert act.grad is not None and twin.grad is not None
    assert act in {*model[1].main_parameters()}

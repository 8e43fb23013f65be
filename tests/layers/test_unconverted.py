"""Norms that a conversion leaves as they are: each class is named once, with its count (W3)."""

import warnings

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from entprop_fast import convert_dual_norm, strip_auxiliary


class OwnNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def like(name: str, base: type[nn.Module] = OwnNorm) -> nn.Module:
    """Return a module of a class of this name: one that scales channels, or another."""
    made: nn.Module = type(name, (base,), {})(*([4] if base is OwnNorm else []))
    return made


def said(model: nn.Module) -> str:
    """Return the one warning of a conversion, empty without any."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        convert_dual_norm(model)
    assert len(caught) <= 1
    assert all(warning.filename == __file__ for warning in caught)
    return str(caught[0].message) if caught else ""


def beside_a_batch_norm(*modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(4), nn.ModuleList(modules))


LEFT = {
    "GroupNorm": nn.GroupNorm(2, 4),
    "RMSNorm": nn.RMSNorm(4),
    "InstanceNorm2d": nn.InstanceNorm2d(4),
    "BatchNorm1d": nn.BatchNorm1d(4),
    "LazyBatchNorm2d": nn.LazyBatchNorm2d(),
    "FrozenBatchNorm2d": torchvision.ops.FrozenBatchNorm2d(4),
    "GlobalResponseNorm": timm.layers.grn.GlobalResponseNorm(4),
    "FilterResponseNormTlu2d": timm.layers.FilterResponseNormTlu2d(4),
    "EvoNorm2dB0": timm.layers.EvoNorm2dB0(4),
    "RmsNorm": timm.layers.RmsNorm(4),
    "GroupNormAct": timm.layers.GroupNormAct(4, 2),
    "LayerNormAct2d": timm.layers.LayerNormAct2d(4),
    "OwnNorm": OwnNorm(4),
    "MyBN": like("MyBN"),
    "T5LayerNorm": like("T5LayerNorm"),
    "ConvNextV2GRN": like("ConvNextV2GRN"),
    "RMSnorm": like("RMSnorm"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
@pytest.mark.parametrize(("name", "norm"), LEFT.items(), ids=LEFT)
def test_a_norm_left_beside_a_converted_one_is_named(name: str, norm: nn.Module) -> None:
    """FOUND W3: by torch's base classes, or by name and what it holds."""
    assert f"1 {name} (1.0)" in said(beside_a_batch_norm(norm))


@pytest.mark.parametrize(
    "module",
    [
        nn.LocalResponseNorm(2),
        nn.Softmax(1),
        nn.PReLU(4),
        like("Normalize", nn.Flatten),
        like("NormFreeBlock"),
        like("NormedLinear"),
        like("NormLinear", nn.Flatten),
        like("SpectralNorm"),
        like("PixelNorm", nn.Flatten),
        timm.layers.ConvNormAct(4, 4),
        timm.layers.LayerScale(4),
        torchvision.ops.Conv2dNormActivation(4, 4),
        parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)),
        nn.utils.weight_norm(nn.Linear(4, 4)),
    ],
    ids=lambda module: type(module).__name__,
)
def test_no_false_alarm(module: nn.Module) -> None:
    assert said(beside_a_batch_norm(module)) == ""


def test_each_class_once_with_its_count() -> None:
    """FOUND W3: as in timm's poolformer, whose GroupNorms are 24 of 25 norms."""
    groups = [nn.GroupNorm(2, 4) for _ in range(24)]
    model = beside_a_batch_norm(*groups, nn.RMSNorm(4), OwnNorm(4), OwnNorm(4))
    message = said(model)
    assert "24 GroupNorm (the first is 1.0), 1 RMSNorm (1.24), 2 OwnNorm (" in message
    assert message.count("GroupNorm") == message.count("OwnNorm") == 1
    assert said(model) == message  # they are left still


def test_the_same_name_from_two_libraries() -> None:
    theirs = torchvision.models.convnext_tiny(weights=None).features[0][1]
    model = beside_a_batch_norm(theirs, type("LayerNorm2d", (OwnNorm,), {})(4))
    message = said(model)
    assert "1 torchvision.models.convnext.LayerNorm2d (1.0)" in message
    assert f"1 {__name__}.LayerNorm2d (1.1)" in message


def test_nothing_converted_names_what_there_is() -> None:
    """FOUND W3: the refusal, too."""
    model = nn.Sequential(nn.GroupNorm(2, 4), nn.GroupNorm(2, 4), OwnNorm(4))
    with pytest.raises(ValueError, match=r"2 GroupNorm .*1 OwnNorm"):
        convert_dual_norm(model)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_what_is_converted_whole_warns_of_nothing(name: str) -> None:
    """FOUND W3: neither of halves, nor of an activation inside a norm, nor the second time."""
    with torch.device("meta"):
        model = timm.create_model(name)
    assert said(model) == said(model) == ""
    assert said(strip_auxiliary(model)) == ""


def test_parametrised_norms_are_of_one_class() -> None:
    """FOUND W3: a neighbour, torch derives a class from each's own."""
    norms = [parametrizations.weight_norm(nn.BatchNorm1d(4), "weight") for _ in range(2)]
    assert "2 BatchNorm1d (the first is 1.0)" in said(beside_a_batch_norm(*norms))


def test_hooks_and_parametrisations_of_a_converted_norm_are_no_norms() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    parametrizations.spectral_norm(model[0])
    prune.identity(model[1], "weight")
    assert said(model) == said(model) == ""

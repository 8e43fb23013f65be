"""Norms that a conversion leaves as they are: each class is named once, with its count (W3)."""

import warnings
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from entprop_fast import convert_dual_norm, strip_auxiliary
from tests.layers import oracle


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


def like_matrix() -> nn.Module:
    norm = like("MatrixNorm")
    norm.register_parameter("mix", nn.Parameter(torch.ones(4, 4)))
    return norm


def wrapping() -> nn.Module:
    norm = like("WrappingNorm")
    norm.add_module("mix", nn.Linear(4, 4))
    return norm


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


class Tracking(OwnNorm):
    def __init__(self) -> None:
        super().__init__(4)
        self.register_buffer("running_mean", torch.zeros(4))


LEFT = {
    "GlobalResponseNorm": (timm.layers.grn.GlobalResponseNorm(4), "that is dual on request"),
    "ConvNextV2GRN": (like("ConvNextV2GRN"), "that is dual on request"),
    "OwnBatchNorm1d": (oracle.OwnBatchNorm1d(4), "with a forward of its own"),
    "MyBN": (type("MyBN", (Tracking,), {})(), "with buffers"),
    "MatrixNorm": (like_matrix(), "with more than a value a channel"),
    "WrappingNorm": (wrapping(), "with layers inside"),
}


@pytest.mark.parametrize(("name", "norm", "why"), [(k, *v) for k, v in LEFT.items()], ids=LEFT)
def test_a_norm_left_beside_a_converted_one_is_named(name: str, norm: nn.Module, why: str) -> None:
    """FOUND W3: by torch's base classes, or by name and what it holds; and what `also` is."""
    message = said(beside_a_batch_norm(norm))
    assert f"1 {name} {why} (1.0)" in message and "also=" in message


@pytest.mark.parametrize("norm", [nn.LazyBatchNorm2d, nn.LazyInstanceNorm2d])
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_a_lazy_norm_is_refused_until_it_has_seen_an_input(norm: Any) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm(affine=True))
    with pytest.raises(ValueError, match=rf"{norm.__name__} \(1\)"):
        convert_dual_norm(model)
    model(torch.rand(2, 3, 4, 4))
    assert said(model) == ""


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
    """FOUND W3: not 24 lines."""
    norms = [oracle.OwnBatchNorm1d(4) for _ in range(24)]
    model = beside_a_batch_norm(*norms, Tracking(), Tracking(), like("MyGRN"))
    why = "with a forward of its own"
    message = said(model)
    assert f"24 OwnBatchNorm1d {why} (the first is 1.0)" in message
    assert message.count("OwnBatchNorm1d") == message.count("MyGRN") == 1
    assert said(model) == message  # they are left still


def test_the_same_name_from_two_libraries() -> None:
    theirs = timm.layers.grn.GlobalResponseNorm(4)
    model = beside_a_batch_norm(theirs, type("GlobalResponseNorm", (OwnNorm,), {})(4))
    message = said(model)
    assert "1 timm.layers.grn.GlobalResponseNorm that is dual on request (1.0)" in message
    assert f"1 {__name__}.GlobalResponseNorm that is dual on request (1.1)" in message


def test_nothing_converted_names_what_there_is() -> None:
    """FOUND W3: the refusal, too."""
    model = nn.Sequential(oracle.OwnBatchNorm1d(4), oracle.OwnBatchNorm1d(4), like("MyGRN"))
    with pytest.raises(ValueError, match=r"2 OwnBatchNorm1d .*1 MyGRN .*also="):
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
    norms = [parametrizations.weight_norm(oracle.OwnBatchNorm1d(4), "weight") for _ in range(2)]
    assert "2 OwnBatchNorm1d with a forward of its own (the first is 1.0)" in said(
        beside_a_batch_norm(*norms)
    )


def test_hooks_and_parametrisations_of_a_converted_norm_are_no_norms() -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    parametrizations.spectral_norm(model[0])
    prune.identity(model[1], "weight")
    assert said(model) == said(model) == ""

"""Names, shapes and refusals of ``models.create``."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from entprop_fast import models


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [
        # The authors' tables, and the implementations in common use.
        ("wrn28_10", 100, 36_536_884),
        ("wrn28_10", 10, 36_479_194),
        ("wrn40_4", 10, 8_949_210),
        ("wrn16_8", 10, 10_961_370),
        ("resnet18", 1000, 11_689_512),
        ("resnet50", 1000, 25_557_032),
        ("wide_resnet50_2", 1000, 68_883_240),
        ("resnext50_32x4d", 1000, 25_028_904),
    ],
)
def test_parameter_counts(name: str, num_classes: int, expected: int) -> None:
    with torch.device("meta"):
        assert parameters(models.create(name, num_classes=num_classes)) == expected


@pytest.mark.parametrize(
    ("name", "widths"),
    [("wrn10_0.5", [8, 8, 16, 32]), ("wrn10_1", [16, 16, 32, 64]), ("wrn10_1.5", [16, 24, 48, 96])],
)
def test_wrn_widths(name: str, widths: list[int]) -> None:
    model = models.create(name, num_classes=10, in_channels=1)
    groups = [model.get_submodule(f"layer{i}.0.conv2") for i in (1, 2, 3)]
    convolutions = [model.get_submodule("conv1"), *groups]
    assert [c.out_channels for c in convolutions if isinstance(c, nn.Conv2d)] == widths


@pytest.mark.parametrize("depth", [10, 16, 22])
def test_wrn_depth_counts_the_convolutions_off_the_shortcuts_and_the_classifier(depth: int) -> None:
    model = models.create(f"wrn{depth}_1", num_classes=10)
    kernels = [m.kernel_size for m in model.modules() if isinstance(m, nn.Conv2d)]
    # The authors count the two 1x1 shortcuts of the narrowing groups and the classifier, too.
    assert kernels.count((3, 3)) + kernels.count((1, 1)) + 1 == depth


@pytest.mark.parametrize("name", ["wrn10_0.5", "wrn16_2", "wrn10_0.01"])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (4, 13)])
def test_wrn_takes_any_image(name: str, channels: int, side: int) -> None:
    model = models.create(name, num_classes=7, in_channels=channels)
    logits = model(torch.rand(3, channels, side, side))
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("stem", "side", "expected"), [("cifar", 32, 32), ("imagenet", 64, 16), ("cifar", 8, 8)]
)
def test_stem_decides_the_first_stage_size(stem: models.Stem, side: int, expected: int) -> None:
    model = models.create("resnet18", num_classes=5, in_channels=1, stem=stem).eval()
    sizes = []
    model.get_submodule("layer1").register_forward_hook(
        lambda module, inputs, output: sizes.append(output.shape[-1])
    )
    assert model(torch.rand(2, 1, side, side)).shape == (2, 5)
    assert sizes == [expected]


def test_initial_convolutions_are_kaiming_fan_out() -> None:
    weight = models.create("wrn10_4", num_classes=10).get_parameter("layer3.0.conv2.weight")
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)
    assert abs(weight.mean().item()) < 1e-4


def test_every_listed_plain_name_exists() -> None:
    names = models.available()
    assert names[0] == "wrn{depth}_{width}"
    for name in names:
        if name.isidentifier():
            with torch.device("meta"):
                models.create(name, num_classes=2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet81", ["'resnet81'", "resnet18"]),
        ("resnext50", ["resnext50_32x4d"]),
        ("wrn28-10", ["'wrn28-10'", "6n+4", "wrn28_10"]),
        ("wrn28", ["6n+4"]),
        ("wrn28_-1", ["positive"]),
        ("wrn28_0", ["width = 0", "positive"]),
        ("wrn27_10", ["depth = 27", "6n+4"]),
        ("wrn4_1", ["depth = 4", "6n+4"]),
        ("timm:", ["'timm:'", "timm:NAME"]),
        ("jax:resnet18", ["'jax:resnet18'", "torchvision:NAME"]),
        ("timm:resnet81", ["'timm:resnet81'", "timm:resnet18"]),
        ("timm:resnet18.nowhere_in1k", ["timm:resnet18.a1_in1k"]),
        ("timm:hf-hub:someone/model", ["unknown arch"]),
        ("timm:test_vit,img_size", ["'img_size'", "img_size=8"]),
        ("timm:test_vit,=8", ["'=8'", "img_size=8"]),
        ("timm:test_vit,img_sizee=8", ["'img_sizee'", "img_size"]),
        ("timm:test_vit,img_size=8,patch_size=0", ["img_size=8,patch_size=0", "zero"]),
        ("torchvision:resnet81", ["'torchvision:resnet81'", "torchvision:resnet18"]),
        ("torchvision:fcn_resnet50", ["torchvision:"]),
    ],
)
def test_unknown_names_are_refused_with_the_valid_ones(name: str, words: list[str]) -> None:
    with pytest.raises(ValueError) as refusal:
        models.create(name, num_classes=10)
    assert all(word in str(refusal.value) for word in words), str(refusal.value)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"stem": "cifar10"}, ValueError),
        ({"name": "wrn10_1", "stem": "cifar"}, ValueError),
        ({"name": "timm:resnet18", "stem": "cifar"}, ValueError),
        ({"name": "torchvision:resnet18", "stem": "cifar"}, ValueError),
        ({"num_classes": 0}, ValueError),
        ({"num_classes": 10.0}, TypeError),
        ({"in_channels": -3}, ValueError),
    ],
    ids=str,
)
def test_other_bad_arguments(changed: dict[str, Any], error: type[Exception]) -> None:
    named, value = list(changed.items())[-1]
    with pytest.raises(error, match=rf"{named}\b.*{value}"):
        models.create(**{"name": "resnet18", "num_classes": 10} | changed)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_missing_library_names_the_extra(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{library}:resnet18.*entprop_fast\[vision\]"):
        models.create(f"{library}:resnet18", num_classes=10)

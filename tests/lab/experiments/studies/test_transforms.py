from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from entprop_fast.lab.experiments.studies.other_transforms import TRANSFORMS, Transform, Transformed
from entprop_fast.layers import convert_dual_norm
from entprop_fast.methods import EntProp
from entprop_fast.models import create

EPS = 0.1


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transformation_keeps_the_form_and_its_input(name: str) -> None:
    x, gradient = torch.rand(6, 2, 7, 5), torch.randn(6, 2, 7, 5)
    before = x.clone()
    moved = TRANSFORMS[name](x, gradient, EPS, generator())
    assert moved.shape == x.shape and moved.dtype == x.dtype and torch.equal(x, before)
    assert torch.equal(moved, x) == (name == "none")
    assert torch.equal(moved, TRANSFORMS[name](x, gradient, EPS, generator()))


def test_values_by_hand() -> None:
    x, gradient = torch.full((4, 1, 3, 3), 0.5), torch.randn(4, 1, 3, 3)
    downhill = TRANSFORMS["downhill step"](x, gradient, EPS, None)
    torch.testing.assert_close(downhill, 0.5 - EPS * gradient.sign())
    signs = TRANSFORMS["random signs"](x, gradient, EPS, generator())
    torch.testing.assert_close((signs - 0.5).abs(), torch.full_like(x, EPS))
    assert 0 < (signs > 0.5).double().mean() < 1
    exponents = TRANSFORMS["gamma"](x, gradient, EPS, generator()).log() / math.log(0.5)
    assert exponents.min() >= 0.5 and exponents.max() <= 2 and exponents.std() > 0
    assert (exponents.flatten(1).std(dim=1) < 1e-6).all()  # one for each image


def test_zoom_keeps_the_centre_and_moves_the_rest() -> None:
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    ramp = ((x + 2 * y) / 24).expand(5, 1, 9, 9)
    moved = TRANSFORMS["zoom"](ramp, ramp, EPS, generator())
    torch.testing.assert_close(moved[:, :, 4, 4], ramp[:, :, 4, 4])
    factors = (moved[:, 0, 4, 5] - moved[:, 0, 4, 3]) / (ramp[:, 0, 4, 5] - ramp[:, 0, 4, 3])
    assert factors.min() >= 0.8 - 1e-5 and factors.max() <= 1.25 + 1e-5 and factors.std() > 0


def free_step(x: Tensor, gradient: Tensor, eps: float, generator: Any) -> Tensor:
    return x + eps * gradient.sign()


def halved(x: Tensor, gradient: Tensor, eps: float, generator: Any) -> Tensor:
    assert not gradient.any()  # there is none before the first pass
    return x / 2


@pytest.mark.parametrize(
    ("transforms", "scale"),
    [({}, 1.0), ({"rows": free_step}, 1.0), ({"batch": halved}, 0.5)],
    ids=["nothing", "rows", "batch"],
)
def test_a_transformation_takes_the_place_of_mixup_or_of_the_free_step(
    transforms: dict[str, Transform], scale: float
) -> None:
    """EntProp's step on images halved beforehand, or with the free step as the transformation."""
    images, labels = torch.rand(8, 1, 8, 8), torch.arange(8)
    finals = []
    for transformed in (True, False):
        torch.manual_seed(0)
        model = convert_dual_norm(create("wrn10_0.5", num_classes=10, in_channels=1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        options: dict[str, Any] = {"k": 0.5, "eps": EPS, "alpha": EPS, "mixup": 0.0}
        if transformed:
            method: EntProp = Transformed(model, optimizer, **transforms, **options)
            method(images, labels)
        else:
            method = EntProp(model, optimizer, **options)
            method(scale * images, labels)
        finals.append((method.perturbed, [p.detach() for p in model.parameters()]))
    torch.testing.assert_close(finals[0], finals[1], rtol=1e-5, atol=1e-6)

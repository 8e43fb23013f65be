"""timm's and torchvision's networks, converted, routed and stripped."""

import copy
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from entprop_fast import convert_dual_norm, route, strip_auxiliary
from entprop_fast.layers.dual_norm import DualNorm
from tests.layers import oracle

NETWORKS = {
    "timm test_efficientnet": ("timm", "test_efficientnet", 13),  # BatchNormAct2d
    "timm test_resnet": ("timm", "test_resnet", 15),
    "timm test_vit": ("timm", "test_vit", 13),
    "timm test_convnext": ("timm", "test_convnext", 14),  # LayerNorm2d
    "torchvision resnet18": ("torchvision", "resnet18", 20),
    "torchvision swin_t": ("torchvision", "swin_t", 29),
}


def build(source: str, name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module
    if source == "timm":
        model = timm.create_model(name, num_classes=5)
    else:
        model = torchvision.models.get_model(name, weights=None, num_classes=5)
    oracle.randomize(model)  # unusual statistics: identical ones would hide a mistake
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_uniform_(parameter)
    return model.eval()


def images(source: str, name: str) -> Tensor:
    size = 160 if "vit" in name else 64
    return torch.randn(3, 3, size, size)


@pytest.mark.parametrize(("source", "name", "norms"), NETWORKS.values(), ids=NETWORKS)
@torch.no_grad()
def test_convert_route_and_strip(source: str, name: str, norms: int) -> None:
    plain, x = build(source, name), images(source, name)
    expected = plain(x)
    assert expected.isfinite().all() and not torch.equal(expected[0], expected[1])

    dual = convert_dual_norm(copy.deepcopy(plain))
    assert sum(isinstance(module, DualNorm) for module in dual.modules()) == norms
    assert torch.equal(dual(x), expected)
    with route(dual, "aux"):
        assert torch.equal(dual(x), expected)
    dual.load_state_dict(plain.state_dict())

    for layer in dual.modules():
        if isinstance(layer, DualNorm):
            oracle.randomize(layer.aux)
    with route(dual, "aux"):
        auxiliary = dual(x)
    with route(dual, 1, batch=len(x)):
        mixed = dual(x)
    close(mixed[:1], expected[:1])
    close(mixed[1:], auxiliary[1:])
    with pytest.raises(AssertionError):
        close(auxiliary, expected)

    stripped = strip_auxiliary(dual)
    assert torch.equal(stripped(x), expected)
    assert stripped.state_dict().keys() == plain.state_dict().keys()
    assert [type(m) for m in stripped.modules()] == [type(m) for m in plain.modules()]


def close(found: Tensor, expected: Tensor) -> None:
    """Eval-mode rows do not mix, but the convolutions' rounding depends on the batch."""
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("drop_layer", [None, nn.Dropout])
@pytest.mark.parametrize("act_layer", [nn.SiLU, nn.ReLU])
def test_the_activation_of_timm_s_norms_is_kept(
    act_layer: type[nn.Module], drop_layer: type[nn.Module] | None
) -> None:
    plain: Any = timm.layers.BatchNormAct2d(3, act_layer=act_layer, drop_layer=drop_layer)
    oracle.randomize(plain)
    if drop_layer is not None:
        plain.drop.p = 0.0
    dual, x = convert_dual_norm(copy.deepcopy(plain)), torch.randn(4, 3, 2, 2)
    with route(dual, 2):
        y = dual(x)
    halves = [oracle.batch_norm(part, plain.weight, plain.bias, plain.eps).y for part in x.split(2)]
    torch.testing.assert_close(y.double(), act_layer()(torch.cat(halves)))
    assert "act" not in dict(dual.aux_bn.named_children())


def test_a_hook_on_timm_s_activation_sees_what_the_norm_gave() -> None:
    dual: Any = convert_dual_norm(timm.layers.BatchNormAct2d(3))
    seen: list[Tensor] = []
    dual.act.register_forward_pre_hook(lambda _, given: seen.append(given[0].clone()))
    dual(torch.randn(4, 3, 2, 2))
    assert (seen[0] < 0).any()

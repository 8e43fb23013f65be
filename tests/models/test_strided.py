"""No network by name has a convolution whose weight gradient oneDNN writes beyond."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from entprop_fast import models
from entprop_fast.models import subsample_few_channels
from entprop_fast.models.strided import SubsampledConv2d

CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)


class Convolutions(TorchDispatchMode):
    """Keeps weight and stride of every convolution, forward and backward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[tuple[torch.Size, list[int]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in CONVOLUTIONS:
            backward = func.overloadpacket is torch.ops.aten.convolution_backward
            weight, stride = (args[2], args[4]) if backward else (args[1], args[3])
            self.found.append((weight.shape, list(stride)))
        return func(*args, **kwargs or {})


def is_dangerous(weight: torch.Size, stride: list[int]) -> bool:
    """1x1, with a stride, on fewer than 16 channels."""
    return weight[1] < 16 and tuple(weight[2:]) == (1, 1) and max(stride) > 1


@pytest.mark.parametrize(
    ("name", "side"), [("wrn10_0.5", 16), ("timm:repvgg_a0", 32), ("resnet18", 32)]
)
def test_no_step_has_one(name: str, side: int) -> None:
    model = models.create(name, num_classes=3, in_channels=3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(5, 3, side, side).contiguous(memory_format=torch.channels_last)
    with Convolutions() as mode:
        model(images).sum().backward()
    strided = [(w, s) for w, s in mode.found if max(s) > 1]
    assert strided, "the network has no stride: the test sees nothing"
    assert not [pair for pair in mode.found if is_dangerous(*pair)]


@pytest.mark.parametrize("stride", [2, (2, 3)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (1, 1)])
def test_values_and_gradients(
    height: int, width: int, bias: bool, stride: int | tuple[int, int]
) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 5, 1, stride, bias=bias).double()
    x = torch.randn(4, 3, height, width, dtype=torch.float64)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    ours = subsample_few_channels(nn.Sequential(plain)).get_submodule("0")
    assert type(ours) is SubsampledConv2d
    leaves = [x, *ours.parameters()]
    expected = F.conv2d(x, plain.weight, plain.bias, stride)
    grad = torch.randn_like(expected)
    y = ours(x)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    found, wanted = (torch.autograd.grad(out, leaves, grad) for out in (y, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert y.stride() == expected.stride() and found[0].stride() == x.stride()


def test_parameters_keys_and_mode_stay() -> None:
    class Other(nn.Conv2d):
        """Of the user's own: left alone."""

    model = nn.Sequential(
        nn.Conv2d(3, 4, 1, 2),
        nn.Sequential(nn.Conv2d(4, 4, 1, 2, bias=False), nn.Conv2d(4, 16, 3, 2)),
        nn.Conv2d(16, 4, 1, 2),
        Other(4, 4, 1, 2),
        nn.Conv2d(4, 4, 1, 2, groups=2),
    ).eval()
    before = model.state_dict(keep_vars=True)
    assert subsample_few_channels(model) is model
    after: dict[str, Tensor] = model.state_dict(keep_vars=True)
    assert list(after) == list(before) and all(after[k] is before[k] for k in before)
    changed = [name for name, m in model.named_modules() if type(m) is SubsampledConv2d]
    assert changed == ["0", "1.0"] and not any(m.training for m in model.modules())


def test_hooks_and_references_stay() -> None:
    inner, seen = nn.Conv2d(3, 4, 1, 2), []
    inner.register_forward_hook(lambda _, __, y: seen.append(y))
    model = subsample_few_channels(nn.Sequential(inner))
    assert list(model.children()) == [inner] and type(inner) is SubsampledConv2d
    y = model(torch.rand(2, 3, 4, 4))
    assert len(seen) == 1 and seen[0] is y

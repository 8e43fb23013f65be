"""Time conv3x3 beside PyTorch's own convolution."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.ops.contenders import Place
from bench.timing import Contender
from entprop_fast.ops import conv3x3


def convolution(shape: tuple[int, ...], place: Place) -> dict[str, Contender]:
    """Make forward and both gradients, as many channels out as in, channels_last."""
    x = place.image(shape, "channels_last").requires_grad_()
    grad = place.image(shape, "channels_last")
    channels = shape[1]
    weight = place.image((channels, channels, 3, 3), "channels_last").requires_grad_()

    def trained(y: Tensor) -> tuple[Tensor, ...]:
        return y, *torch.autograd.grad(y, (x, weight), grad)

    return {
        "ours": lambda: trained(conv3x3(x, weight)),
        "eager": lambda: trained(F.conv2d(x, weight, padding=1)),
    }

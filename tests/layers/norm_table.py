"""Every kind of norm that a conversion makes dual, with its formula in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from timm.layers import norm_act
from timm.models import metaformer
from torch import Tensor, nn
from transformers.models.bit import modeling_bit
from transformers.models.bit.configuration_bit import BitConfig
from transformers.models.convnext import modeling_convnext
from transformers.models.detr import modeling_detr
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5 import modeling_t5

C = 6
# Hugging Face's constructors have no types.
Bit: Any = modeling_bit.BitGroupNormActivation
ConvNextLayerNorm: Any = modeling_convnext.ConvNextLayerNorm
DetrFrozenBatchNorm2d: Any = modeling_detr.DetrFrozenBatchNorm2d
T5LayerNorm: Any = modeling_t5.T5LayerNorm
Truth = Callable[[Any, Tensor], Tensor]


class Plain(nn.BatchNorm2d):
    """A subclass without a forward of its own."""

    def extra(self) -> str:
        return "kept"


class PlainLayerNorm(nn.LayerNorm):
    """Likewise."""


class GatedRMSNorm(nn.Module):
    """A norm with further arguments, of as many rows as the first and not."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, hidden: Tensor, gate: Tensor | None = None, scale: float = 1.0) -> Tensor:
        y = hidden * hidden.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * self.weight
        return scale * (y if gate is None else y * gate)


class Row(NamedTuple):
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    aux_name: str
    truth: Truth


def moments(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance by their definitions, kept as dimensions."""
    count = 1
    for dim in dims:
        count *= x.shape[dim]
    mean = x.sum(dims, keepdim=True) / count
    return mean, (x - mean).square().sum(dims, keepdim=True) / count


def affine(norm: Any, y: Tensor, channels: int) -> Tensor:
    """Scale and shift by the norm's tensors, over the dimension of the channels."""
    shape = [1] * y.dim()
    shape[channels] = -1
    if norm.weight is not None:
        y = y * norm.weight.double().reshape(shape)
    bias = getattr(norm, "bias", None)
    return y if bias is None else y + bias.double().reshape(shape)


def standardised(x: Tensor, dims: tuple[int, ...], eps: float, *, centred: bool = True) -> Tensor:
    mean, variance = moments(x, dims)
    if not centred:
        return x / (x.square().mean(dims, keepdim=True) + eps).sqrt()
    return (x - mean) / (variance + eps).sqrt()


def batch(norm: Any, x: Tensor) -> Tensor:
    return affine(norm, standardised(x, (0, *range(2, x.dim())), norm.eps), 1)


def instance(norm: Any, x: Tensor) -> Tensor:
    return affine(norm, standardised(x, tuple(range(2, x.dim())), norm.eps), 1)


def frozen(norm: Any, x: Tensor) -> Tensor:
    mean, variance = (
        t.double().reshape(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var)
    )
    return affine(norm, (x - mean) / (variance + getattr(norm, "eps", 1e-5)).sqrt(), 1)


def layer(dim: int, eps: float | None = None, *, centred: bool = True) -> Truth:
    """Over the channels in dimension `dim`."""

    def truth(norm: Any, x: Tensor) -> Tensor:
        used = eps if eps is not None else norm.eps
        return affine(norm, standardised(x, (dim % x.dim(),), used, centred=centred), dim)

    return truth


def group(norm: Any, x: Tensor) -> Tensor:
    split = x.reshape(len(x), norm.num_groups, -1)
    return affine(norm, standardised(split, (2,), norm.eps).reshape(x.shape), 1)


def relu(truth: Truth) -> Truth:
    return lambda norm, x: truth(norm, x).clamp(min=0)


def simple(dim: int) -> Truth:
    """Divide by the standard deviation, without a mean taken away; unbiased, as timm's does."""

    def truth(norm: Any, x: Tensor) -> Tensor:
        variance = x.var(dim, keepdim=True)
        return affine(norm, x / (variance + norm.eps).sqrt(), dim)

    return truth


def response(norm: Any, x: Tensor) -> Tensor:
    y = affine(norm, standardised(x, (2, 3), norm.eps, centred=False), 1)
    return torch.maximum(y, norm.tau.double().reshape(1, -1, 1, 1))


def evo_b0(norm: Any, x: Tensor) -> Tensor:
    _, across = moments(x, (0, 2, 3))
    _, within = moments(x, (2, 3))
    v = norm.v.double().reshape(1, -1, 1, 1)
    below = torch.maximum(
        (across + norm.eps).sqrt(), x * v + (within + norm.eps).sqrt().expand_as(x)
    )
    return affine(norm, x / below, 1)


def evo_s0(norm: Any, x: Tensor) -> Tensor:
    split = x.reshape(len(x), norm.groups, -1)
    _, variance = moments(split, (2,))
    deviation = (variance + norm.eps).sqrt().expand_as(split).reshape(x.shape)
    v = norm.v.double().reshape(1, -1, 1, 1)
    return affine(norm, x * (x * v).sigmoid() / deviation, 1)


def gated(norm: Any, x: Tensor) -> Tensor:
    return affine(norm, standardised(x, (2,), 1e-6, centred=False), 2)


IMAGES, TOKENS = (5, C, 4, 4), (5, 3, C)
TABLE: dict[str, Row] = {
    "BatchNorm1d": Row(lambda: nn.BatchNorm1d(C), (5, C), "aux_bn", batch),
    "BatchNorm1d, tokens": Row(lambda: nn.BatchNorm1d(C), (5, C, 7), "aux_bn", batch),
    "BatchNorm2d": Row(lambda: nn.BatchNorm2d(C), IMAGES, "aux_bn", batch),
    "BatchNorm3d": Row(lambda: nn.BatchNorm3d(C), (5, C, 2, 3, 4), "aux_bn", batch),
    "subclass": Row(lambda: Plain(C), IMAGES, "aux_bn", batch),
    "BatchNormAct2d": Row(
        lambda: norm_act.BatchNormAct2d(C, inplace=False), IMAGES, "aux_bn", relu(batch)
    ),
    "frozen": Row(lambda: torchvision.ops.FrozenBatchNorm2d(C), IMAGES, "aux_bn", frozen),
    "frozen, timm's": Row(lambda: norm_act.FrozenBatchNormAct2d(C), IMAGES, "aux_bn", relu(frozen)),
    "frozen, DETR's": Row(lambda: DetrFrozenBatchNorm2d(C), IMAGES, "aux_bn", frozen),
    "LayerNorm": Row(lambda: nn.LayerNorm(C), TOKENS, "aux_ln", layer(2)),
    "LayerNorm subclass": Row(lambda: PlainLayerNorm(C), TOKENS, "aux_ln", layer(2)),
    "GroupNorm": Row(lambda: nn.GroupNorm(2, C), IMAGES, "aux_norm", group),
    "RMSNorm": Row(lambda: nn.RMSNorm(C, eps=1e-6), TOKENS, "aux_norm", layer(2, centred=False)),
    "InstanceNorm1d": Row(
        lambda: nn.InstanceNorm1d(C, affine=True), (5, C, 7), "aux_norm", instance
    ),
    "InstanceNorm2d": Row(
        lambda: nn.InstanceNorm2d(C, affine=True, track_running_stats=True),
        IMAGES,
        "aux_norm",
        instance,
    ),
    "InstanceNorm3d": Row(
        lambda: nn.InstanceNorm3d(C, affine=True), (5, C, 2, 3, 4), "aux_norm", instance
    ),
    "timm GroupNorm": Row(lambda: timm.layers.GroupNorm(C, 2), IMAGES, "aux_norm", group),
    "timm GroupNorm1": Row(lambda: timm.layers.GroupNorm1(C), IMAGES, "aux_norm", group),
    "timm GroupNormAct": Row(
        lambda: timm.layers.GroupNormAct(C, 2), IMAGES, "aux_norm", relu(group)
    ),
    "timm LayerNorm2d": Row(lambda: timm.layers.LayerNorm2d(C), IMAGES, "aux_ln", layer(1)),
    "timm LayerNormFp32": Row(lambda: timm.layers.LayerNormFp32(C), TOKENS, "aux_ln", layer(2)),
    "timm LayerNormAct2d": Row(
        lambda: timm.layers.LayerNormAct2d(C), IMAGES, "aux_ln", relu(layer(1))
    ),
    "timm NoBias": Row(lambda: metaformer.LayerNorm2dNoBias(C), IMAGES, "aux_ln", layer(1)),
    "timm RmsNorm": Row(
        lambda: timm.layers.RmsNorm(C), TOKENS, "aux_norm", layer(2, centred=False)
    ),
    "timm RmsNorm2d": Row(
        lambda: timm.layers.RmsNorm2d(C), IMAGES, "aux_norm", layer(1, centred=False)
    ),
    "timm SimpleNorm": Row(lambda: timm.layers.SimpleNorm(C), TOKENS, "aux_norm", simple(2)),
    "timm EvoNorm2dB0": Row(lambda: timm.layers.EvoNorm2dB0(C), IMAGES, "aux_norm", evo_b0),
    "timm EvoNorm2dS0": Row(
        lambda: timm.layers.EvoNorm2dS0(C, groups=2), IMAGES, "aux_norm", evo_s0
    ),
    "timm FilterResponseNorm": Row(
        lambda: timm.layers.FilterResponseNormTlu2d(C), IMAGES, "aux_norm", response
    ),
    "torchvision LayerNorm2d": Row(
        lambda: torchvision.models.convnext.LayerNorm2d(C), IMAGES, "aux_ln", layer(1)
    ),
    "LlamaRMSNorm": Row(lambda: LlamaRMSNorm(C), TOKENS, "aux_norm", layer(2, 1e-6, centred=False)),
    "T5LayerNorm": Row(lambda: T5LayerNorm(C), TOKENS, "aux_norm", layer(2, 1e-6, centred=False)),
    "ConvNextLayerNorm": Row(
        lambda: ConvNextLayerNorm(C, data_format="channels_first"), IMAGES, "aux_ln", layer(1)
    ),
    "BitGroupNormActivation": Row(
        lambda: Bit(BitConfig(num_groups=2), C),
        IMAGES,
        "aux_norm",
        relu(group),
    ),
    "further arguments": Row(lambda: GatedRMSNorm(C), TOKENS, "aux_norm", gated),
}

"""Create networks by name, plain ones: one norm per spot, fresh weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from entprop_fast.models import external, resnet, wrn
from entprop_fast.models.aux_checkpoint import load_aux_checkpoint
from entprop_fast.models.resnet import ResNet, Stem
from entprop_fast.models.strided import subsample_few_channels
from entprop_fast.models.wrn import WideResNet
from entprop_fast.name_errors import unknown

__all__ = [
    "ResNet",
    "Stem",
    "WideResNet",
    "available",
    "create",
    "load_aux_checkpoint",
    "subsample_few_channels",
]

_STEMS = ("imagenet", "cifar")
_EXTERNAL = {"timm": external.create_timm, "torchvision": external.create_torchvision}


def available() -> list[str]:
    """List every name and pattern that :func:`create` understands."""
    return ["wrn{depth}_{width}", *resnet.LAYOUTS, *(f"{library}:NAME" for library in _EXTERNAL)]


def create(
    name: str, *, num_classes: int, in_channels: int = 3, stem: Stem = "imagenet"
) -> nn.Module:
    """Create a plain (single-norm) network with fresh weights; ``convert_dual_norm`` makes it dual.

    Args:
        name: ``wrn{depth}_{width}`` (depth = 6n+4, width a positive number such as 10 or 0.5),
            ``resnet18``, ``resnet50``, ``wide_resnet50_2``, ``resnext50_32x4d`` (the paper's),
            ``timm:NAME`` or ``torchvision:NAME``. timm's take arguments of their own after the
            name: ``timm:vit_tiny_patch16_224,img_size=8,patch_size=2``.
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
        stem: of the ResNets, ``"imagenet"`` (7x7 of stride 2, max-pool; torchvision's keys and
            outputs) or ``"cifar"`` (3x3 of stride 1, no max-pool). Every other name has one stem,
            its own, and takes no ``"cifar"``.

    Returns:
        A module from images ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``.

    Raises:
        ValueError: unknown name (the nearest ones are named), a depth or width that no wide ResNet
            has, a stem that the name does not have, fewer than 1 class or channel.
        TypeError: ``num_classes`` or ``in_channels`` is not an integer.
        ImportError: the library behind the name is not installed.
    """
    _check_count("num_classes", num_classes)
    _check_count("in_channels", in_channels)
    if stem not in _STEMS:
        raise unknown("stem", stem, _STEMS)
    if name in resnet.LAYOUTS:
        layout = resnet.LAYOUTS[name]
        return ResNet(layout, num_classes=num_classes, in_channels=in_channels, stem=stem)
    build = _builder(name)
    if stem != "imagenet":
        raise ValueError(
            f"stem = {stem!r} is for {', '.join(resnet.LAYOUTS)}; {name!r} has only its own stem"
        )
    return subsample_few_channels(build(num_classes=num_classes, in_channels=in_channels))


def _builder(name: str) -> Callable[..., nn.Module]:
    library, _, inner = name.partition(":")
    if library in _EXTERNAL and inner:
        return partial(_EXTERNAL[library], inner)
    if name.startswith("wrn"):
        return partial(WideResNet, *wrn.parse(name))
    raise unknown("arch", name, available())


def _check_count(argument: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{argument} = {value!r} must be an integer")
    if value < 1:
        raise ValueError(f"{argument} = {value} must be at least 1")

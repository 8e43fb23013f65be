"""Build ResNet, Wide ResNet-50-2 and ResNeXt-50 with torchvision's state_dict keys and outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from entprop_fast.models.blocks import (
    conv,
    is_untouched,
    norm_relu,
    norm_relu_outputs,
    only_read,
    parts_of,
)
from entprop_fast.models.first_weights import init_convolutional
from entprop_fast.norm_half import Normed

Stem = Literal["imagenet", "cifar"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the shortcut (He et al., CVPR 2016).

    It has no grouped or widened form: ``groups`` and ``base_width`` are the Bottleneck's.
    """

    expansion = 1

    def __init__(
        self, in_width: int, planes: int, stride: int, groups: int, base_width: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _downsample(in_width, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_width, H, W]`` to ``[N, planes, ceil(H / stride), ceil(W / stride)]``."""
        return self.outputs(x, x, twice=False).y

    def outputs(self, x: Tensor, again: Tensor, twice: bool) -> Normed:
        """Compute the block with ``x`` for its convolution and ``again``, the same, for the skip.

        Their gradients then meet in the norm that made both. `twice` asks for two of the output.
        """
        skip = again if self.downsample is None else self.downsample(again)
        out = norm_relu(self.bn1, conv(self.conv1, x))
        return norm_relu_outputs(self.bn2, conv(self.conv2, out), skip, twice=twice)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and the shortcut; the stride sits on the 3x3 (torchvision's "v1.5")."""

    expansion = 4

    def __init__(
        self, in_width: int, planes: int, stride: int, groups: int, base_width: int
    ) -> None:
        super().__init__()
        width = planes * base_width // 64 * groups
        out_width = planes * self.expansion
        self.conv1 = nn.Conv2d(in_width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_width)
        self.downsample = _downsample(in_width, out_width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_width, H, W]`` to ``[N, 4 planes, ceil(H / stride), ceil(W / stride)]``."""
        return self.outputs(x, x, twice=False).y

    def outputs(self, x: Tensor, again: Tensor, twice: bool) -> Normed:
        """Compute the block as `BasicBlock.outputs` does."""
        skip = again if self.downsample is None else self.downsample(again)
        out = norm_relu(self.bn1, self.conv1(x))
        out = norm_relu(self.bn2, conv(self.conv2, out))
        return norm_relu_outputs(self.bn3, self.conv3(out), skip, twice=twice)


@dataclass(frozen=True)
class Layout:
    """Tell one member of the family from another."""

    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]
    groups: int = 1
    base_width: int = 64


LAYOUTS: dict[str, Layout] = {
    "resnet18": Layout(BasicBlock, (2, 2, 2, 2)),
    "resnet50": Layout(Bottleneck, (3, 4, 6, 3)),
    "wide_resnet50_2": Layout(Bottleneck, (3, 4, 6, 3), base_width=128),
    "resnext50_32x4d": Layout(Bottleneck, (3, 4, 6, 3), groups=32, base_width=4),
}


class ResNet(nn.Module):
    """Four stages behind a stem.

    Args:
        layout: one of ``LAYOUTS``.
        num_classes: outputs of the classifier.
        in_channels: channels of the images.
        stem: ``"imagenet"``, 7x7 of stride 2 then max-pool, or ``"cifar"``, 3x3 of stride 1 alone.
    """

    def __init__(
        self, layout: Layout, *, num_classes: int, in_channels: int = 3, stem: Stem = "imagenet"
    ) -> None:
        super().__init__()
        self.maxpool: nn.Module
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
            self.maxpool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(64)
        expansion = layout.block.expansion
        self.layer1 = _stage(layout, 0, 64, stride=1)
        self.layer2 = _stage(layout, 1, 64 * expansion, stride=2)
        self.layer3 = _stage(layout, 2, 128 * expansion, stride=2)
        self.layer4 = _stage(layout, 3, 256 * expansion, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * expansion, num_classes)
        init_convolutional(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[N, in_channels, H, W]`` to logits ``[N, num_classes]``."""
        straight = is_untouched(self.maxpool, nn.Identity, x)  # into the first block
        x, again = norm_relu_outputs(self.bn1, self.conv1(x), twice=straight)[:2]
        if not straight:
            x = again = self.maxpool(x)
        parts = parts_of((self.layer1, self.layer2, self.layer3, self.layer4), x)
        for part in parts:
            if _reads_twice(part, x):
                x, again = part.outputs(x, again, twice=part is not parts[-1])[:2]  # type: ignore[operator]
            else:
                x = again = part(x)
        logits: Tensor = self.fc(self.avgpool(x).flatten(1))
        return logits


def _stage(layout: Layout, index: int, in_width: int, stride: int) -> nn.Sequential:
    planes = 64 << index
    out_width = planes * layout.block.expansion

    def block(block_in: int, block_stride: int) -> nn.Module:
        return layout.block(block_in, planes, block_stride, layout.groups, layout.base_width)

    later = (block(out_width, 1) for _ in range(layout.blocks[index] - 1))
    return nn.Sequential(block(in_width, stride), *later)


def _reads_twice(part: nn.Module, x: Tensor) -> bool:
    """Return whether `part` is a block that takes its input in two tensors of one memory."""
    known = is_untouched(part, BasicBlock, x) or is_untouched(part, Bottleneck, x)
    return known and only_read(part.conv1, part.downsample)  # type: ignore[arg-type]


def _downsample(in_width: int, out_width: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_width == out_width:
        return None
    conv = nn.Conv2d(in_width, out_width, 1, stride, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out_width))

"""Build pre-activation Wide ResNets (Zagoruyko and Komodakis, BMVC 2016), for small images."""

from __future__ import annotations

import math
import re

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

_NAME = re.compile(r"wrn(\d+)_(\d+(?:\.\d+)?)")
_BASE_WIDTH = 16
_DEEPEST = 10_000  # a name out of a damaged file must not build layers for hours


class PreActBlock(nn.Module):
    """BN-ReLU-conv twice, plus the shortcut; a 1x1 convolution where shapes change.

    Where the shortcut is a convolution it reads the activated input, as in the authors' code.
    """

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_width != width:
            self.shortcut = nn.Conv2d(in_width, width, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, in_width, H, W]`` to ``[N, width, ceil(H / stride), ceil(W / stride)]``."""
        out, skip = self.summands(self.normed(x))
        return out + skip

    def normed(self, x: Tensor, skip: Tensor | None = None) -> Normed:
        """Return the activated input, once for each of its readers, and the input itself.

        Args:
            x: the block's input, or what it still lacks `skip`.
            skip: same shape as ``x``, or None for no sum.
        """
        twice = self.shortcut is not None and only_read(self.conv1, self.shortcut)
        return norm_relu_outputs(self.bn1, x, addend=skip, twice=twice)

    def summands(self, normed: Normed) -> tuple[Tensor, Tensor]:
        """Return the two tensors whose sum is the block's output.

        The sum is the next norm's to take, which reads its input in any case.
        """
        skip = normed.total if self.shortcut is None else self.shortcut(normed.again)
        out: Tensor = conv(self.conv2, norm_relu(self.bn2, conv(self.conv1, normed.y)))
        return out, skip


class WideResNet(nn.Module):
    """WRN-depth-width: three groups of ``(depth - 4) / 6`` blocks, then BN-ReLU and the classifier.

    The groups are ``16 * width``, twice and four times that wide (``16 * width`` rounded half up,
    at least 1). The first convolution has 16 channels, or the first group's width where that is
    less, so that WRN-10 of width 0.5 is 8-16-32 throughout.

    Args:
        depth: ``6n + 4`` with ``n >= 1``.
        width: positive and finite, fractions allowed.
        num_classes: outputs of the classifier.
        in_channels: channels of the images.

    Raises:
        ValueError: for a depth or width outside the above.
    """

    def __init__(self, depth: int, width: float, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(
                f"wide ResNet depth = {depth} is not 6n+4 with n >= 1 (10, 16, 22, 28, 34, 40, ...)"
            )
        if depth > _DEEPEST:
            raise ValueError(f"wide ResNet depth = {depth} must be at most {_DEEPEST}")
        if not (math.isfinite(width) and width > 0):
            raise ValueError(f"wide ResNet width = {width} must be a positive number")
        base = max(1, math.floor(_BASE_WIDTH * width + 0.5))
        stem = min(_BASE_WIDTH, base)
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.layer1 = _group(stem, base, blocks, stride=1)
        self.layer2 = _group(base, 2 * base, blocks, stride=2)
        self.layer3 = _group(2 * base, 4 * base, blocks, stride=2)
        self.bn = nn.BatchNorm2d(4 * base)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4 * base, num_classes)
        init_convolutional(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``[N, in_channels, H, W]`` of any size to logits ``[N, num_classes]``."""
        skip = None
        x = self.conv1(x)
        for part in parts_of((self.layer1, self.layer2, self.layer3), x):
            if is_untouched(part, PreActBlock, x):
                normed = part.normed(x, skip)  # type: ignore[operator]
                x, skip = normed.total, None  # the summands go before the block runs
                x, skip = part.summands(normed)  # type: ignore[operator]
                del normed
            else:
                x, skip = part(x if skip is None else x + skip), None
        activated = norm_relu_outputs(self.bn, x, addend=skip).y
        logits: Tensor = self.fc(self.avgpool(activated).flatten(1))
        return logits


def parse(name: str) -> tuple[int, float]:
    """Read depth and width out of ``wrn{depth}_{width}``; ``ValueError`` for any other form."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"arch {name!r} is not wrn{{depth}}_{{width}} with depth = 6n+4 and width a positive "
            "number, such as wrn28_10, wrn16_4 or wrn10_0.5"
        )
    return int(match[1]), float(match[2])


def _group(in_width: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = PreActBlock(in_width, width, stride)
    return nn.Sequential(first, *(PreActBlock(width, width, 1) for _ in range(blocks - 1)))

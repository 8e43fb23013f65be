"""Generate the 15 + 4 common corruptions of ImageNet-C and CIFAR-C in batches on any device."""

from entprop_fast.lab.corruptions.common.generate import (
    COMMON_KINDS,
    EXTRA_KINDS,
    GENERATOR,
    check_channels,
    check_kind,
    common_corruption,
    corrupted_bytes,
)
from entprop_fast.lab.corruptions.common.levels import to_bytes
from entprop_fast.lab.corruptions.common.strengths import SCALES, Scale

__all__ = [
    "COMMON_KINDS",
    "EXTRA_KINDS",
    "GENERATOR",
    "SCALES",
    "Scale",
    "check_channels",
    "check_kind",
    "common_corruption",
    "corrupted_bytes",
    "to_bytes",
]

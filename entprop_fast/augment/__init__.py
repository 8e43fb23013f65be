"""Augment whole batches on any device, each image by draws of its own."""

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.augmix import AugMix
from entprop_fast.augment.chain import Chain, parse_chain
from entprop_fast.augment.names import AUGMENTATIONS
from entprop_fast.augment.randaugment import RandAugment
from entprop_fast.augment.trivialaugment import TrivialAugment

__all__ = [
    "AUGMENTATIONS",
    "AugMix",
    "Augmentation",
    "Chain",
    "RandAugment",
    "TrivialAugment",
    "parse_chain",
]

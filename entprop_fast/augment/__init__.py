"""Augment whole batches on any device, each image by draws of its own."""

from entprop_fast.augment.as_transform import as_transform
from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.augmix import AugMix
from entprop_fast.augment.chain import Chain, parse_chain
from entprop_fast.augment.crop_flip import CropFlip
from entprop_fast.augment.erasing import Cutout, RandomErasing
from entprop_fast.augment.names import AUGMENTATIONS
from entprop_fast.augment.pixmix import PixMix
from entprop_fast.augment.prime import Prime
from entprop_fast.augment.randaugment import RandAugment
from entprop_fast.augment.trivialaugment import TrivialAugment

__all__ = [
    "AUGMENTATIONS",
    "AugMix",
    "Augmentation",
    "Chain",
    "CropFlip",
    "Cutout",
    "PixMix",
    "Prime",
    "RandAugment",
    "RandomErasing",
    "TrivialAugment",
    "as_transform",
    "parse_chain",
]

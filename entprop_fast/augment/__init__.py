"""Augment whole batches on any device, each image by draws of its own."""

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.chain import Chain, parse_chain
from entprop_fast.augment.crop_flip import CropFlip
from entprop_fast.augment.names import AUGMENTATIONS

__all__ = ["AUGMENTATIONS", "Augmentation", "Chain", "CropFlip", "parse_chain"]

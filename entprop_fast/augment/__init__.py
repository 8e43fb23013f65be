"""Augment whole batches on any device, each image by draws of its own."""

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.chain import Chain, parse_chain
from entprop_fast.augment.names import AUGMENTATIONS
from entprop_fast.augment.prime import Prime

__all__ = ["AUGMENTATIONS", "Augmentation", "Chain", "Prime", "parse_chain"]

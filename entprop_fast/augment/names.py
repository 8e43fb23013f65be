"""List the augmentations by their names in a chain."""

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.augmix import AugMix
from entprop_fast.augment.randaugment import RandAugment
from entprop_fast.augment.trivialaugment import TrivialAugment

_CLASSES: tuple[type[Augmentation], ...] = (AugMix, TrivialAugment, RandAugment)
AUGMENTATIONS: dict[str, type[Augmentation]] = {cls.name: cls for cls in _CLASSES}

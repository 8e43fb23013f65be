"""List the augmentations by their names in a chain."""

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.erasing import Cutout, RandomErasing
from entprop_fast.augment.pixmix import PixMix

_CLASSES: tuple[type[Augmentation], ...] = (RandomErasing, Cutout, PixMix)
AUGMENTATIONS: dict[str, type[Augmentation]] = {cls.name: cls for cls in _CLASSES}

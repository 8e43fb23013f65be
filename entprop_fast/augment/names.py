"""List the augmentations by their names in a chain."""

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.prime import Prime

_CLASSES: tuple[type[Augmentation], ...] = (Prime,)
AUGMENTATIONS: dict[str, type[Augmentation]] = {cls.name: cls for cls in _CLASSES}

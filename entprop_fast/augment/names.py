"""List the augmentations by their names in a chain."""

from entprop_fast.augment.augmentation import Augmentation

_CLASSES: tuple[type[Augmentation], ...] = ()
AUGMENTATIONS: dict[str, type[Augmentation]] = {cls.name: cls for cls in _CLASSES}

"""List the augmentations by their names in a chain."""

from entprop_fast.augment.augmentation import Augmentation
from entprop_fast.augment.augmix import AugMix
from entprop_fast.augment.crop_flip import CropFlip
from entprop_fast.augment.erasing import Cutout, RandomErasing
from entprop_fast.augment.pixmix import PixMix
from entprop_fast.augment.prime import Prime
from entprop_fast.augment.randaugment import RandAugment
from entprop_fast.augment.trivialaugment import TrivialAugment

_CLASSES: tuple[type[Augmentation], ...] = (
    CropFlip,
    AugMix,
    Prime,
    TrivialAugment,
    RandAugment,
    RandomErasing,
    Cutout,
    PixMix,
)
AUGMENTATIONS: dict[str, type[Augmentation]] = {cls.name: cls for cls in _CLASSES}

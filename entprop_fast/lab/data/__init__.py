"""Load data sets, and batch and augment their images."""

from entprop_fast.augment import CropFlip as Augment  # its name until there were others
from entprop_fast.lab.data.choose_loader import LOADERS, create_loader
from entprop_fast.lab.data.datasets import DATASETS, ImageSet, load
from entprop_fast.lab.data.image_data import ImageData
from entprop_fast.lab.data.image_files import FileList, ImageFiles
from entprop_fast.lab.data.image_values import to_float
from entprop_fast.lab.data.loader import DeviceLoader, Loader, channels_last
from entprop_fast.lab.data.prefetch import PrefetchLoader, UnreadableImage

__all__ = [
    "DATASETS",
    "LOADERS",
    "Augment",
    "DeviceLoader",
    "FileList",
    "ImageData",
    "ImageFiles",
    "ImageSet",
    "Loader",
    "PrefetchLoader",
    "UnreadableImage",
    "channels_last",
    "create_loader",
    "load",
    "to_float",
]

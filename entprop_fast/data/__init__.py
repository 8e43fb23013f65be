"""Images: data sets, the loaders that batch and augment them, and the corruption suite."""

from entprop_fast.data.augment import AUGMENTS, Augment, to_float
from entprop_fast.data.choose import LOADERS, create_loader
from entprop_fast.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from entprop_fast.data.datasets import DATASETS, ImageSet, load
from entprop_fast.data.image_data import ImageData
from entprop_fast.data.image_files import FileList, ImageFiles
from entprop_fast.data.loader import DeviceLoader, Loader, channels_last
from entprop_fast.data.prefetch import PrefetchLoader, UnreadableImage

__all__ = [
    "AUGMENTS",
    "CORRUPTIONS",
    "DATASETS",
    "LOADERS",
    "SEVERITIES",
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
    "corrupt",
    "create_loader",
    "load",
    "to_float",
]

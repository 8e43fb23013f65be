"""Images: data sets, the loader that keeps them on the device, and the corruption suite."""

from entprop_fast.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from entprop_fast.data.datasets import DATASETS, ImageData, load
from entprop_fast.data.loader import DeviceLoader

__all__ = [
    "CORRUPTIONS",
    "DATASETS",
    "SEVERITIES",
    "DeviceLoader",
    "ImageData",
    "corrupt",
    "load",
]

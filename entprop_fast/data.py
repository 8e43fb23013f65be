"""Load, batch and corrupt images; ``python -m entprop_fast.data check`` looks at a data set."""

import sys

from entprop_fast.lab.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from entprop_fast.lab.data import (
    AUGMENTS,
    DATASETS,
    LOADERS,
    Augment,
    DeviceLoader,
    FileList,
    ImageData,
    ImageFiles,
    ImageSet,
    Loader,
    PrefetchLoader,
    UnreadableImage,
    channels_last,
    create_loader,
    load,
    to_float,
)

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

if __name__ == "__main__":
    from entprop_fast.lab.cli.data import main

    sys.exit(main())

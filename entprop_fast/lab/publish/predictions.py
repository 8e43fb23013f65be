"""Classify image files with a trained network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from entprop_fast.eval_mode import evaluating
from entprop_fast.lab import stopping
from entprop_fast.lab.data.stray_files import is_image, is_system_file
from entprop_fast.lab.training.deploy import NetworkSpec
from entprop_fast.logits import logits_of


@dataclass(frozen=True)
class Prediction:
    """Hold what a network says about a file: its likeliest classes, the first one first."""

    file: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def find_images(paths: Sequence[str]) -> list[Path]:
    """List files as they are given, and those of folders, at any depth, by name.

    Raises:
        FileNotFoundError: a path leads nowhere.
        ValueError: a folder holds no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            if not path.exists():
                raise FileNotFoundError(f"{path}: there is no such file or folder")
            found.append(path)
            continue
        inside = list(_images_in(path))
        if not inside:
            raise ValueError(f"{path}: there is no image in this folder")
        found += inside
    return found


def predict(
    network: nn.Module,
    spec: NetworkSpec,
    files: Sequence[Path],
    *,
    device: torch.device,
    top: int = 5,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Yield the likeliest classes of each file, and their probabilities.

    Args:
        network: in eval mode, on `device`.
        spec: of the network.
        files: of images.
        device: on which it runs.
        top: classes of each; all of them where there are fewer.
        batch_size: images in a forward pass.

    Raises:
        OSError: (while iterating) a file cannot be read as an image; the message names it.
        ValueError: the network gives NaN.
    """
    prepare = spec.preprocessing
    for first in range(0, len(files), batch_size):
        group = files[first : first + batch_size]
        images = torch.stack([prepare(file) for file in group]).to(device)
        with evaluating(network), torch.inference_mode():
            logits = logits_of(network(images), len(group)).float()
        shares, places = logits.softmax(dim=1).topk(min(top, logits.shape[1]))
        if not shares.isfinite().all():
            raise ValueError(f"the network gives NaN for an image of {group[0]} and those after it")
        for file, share, place in zip(group, shares.tolist(), places.tolist(), strict=True):
            classes = tuple(spec.classes[one] for one in place)
            yield Prediction(str(file), classes, tuple(share))
        stopping.check()


def _images_in(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if not is_system_file(one))
        yield from (Path(root, name) for name in sorted(files) if is_image(name))

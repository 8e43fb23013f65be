"""Choose the settings of a first run on a folder of images, and say why for each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from entprop_fast.lab.data.datasets import FOLDER
from entprop_fast.lab.data.image_files import IMAGE_SIZE, SMALL
from entprop_fast.lab.training import follow_data, recipe
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.method_settings import Value
from entprop_fast.models.weights import PRETRAINED, RANDOM

FEW = 10_000  # training images from which a network is not trained from scratch if it can be helped
_STEPS = 10  # an epoch: batches are made smaller for them
_SMALLEST_BATCH = 16
_SMALLEST_REST = 8  # 0.2 of it are two rows
_IMAGES_SEEN = 5_000_000  # of a run: epochs are made fewer for them
_FEWEST_EPOCHS = 10


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Say what matters of a folder of images: where it is, and how much there is to learn from."""

    path: Path
    num_train: int
    num_test: int
    num_classes: int
    side: int  # pixels: what the network would see, `usual_image_size`


@dataclass(frozen=True)
class Choice:
    """Hold the settings of a run, and by the name of a setting why it has its value."""

    config: Config
    reasons: dict[str, str]


def choose(folder: Folder, weights: str | None = None) -> Choice:
    """Choose what suits the images, from the recipes that such a folder gets anyway.

    Args:
        folder: what was found.
        weights: to start from, as ``--weights`` names them. None: the published ones where they are
            already on this machine and the images are few, else none.

    Raises:
        ValueError: weights that are not to be had, or a single training image.
    """
    if folder.num_train < 2:
        raise ValueError(f"{folder.path} has {folder.num_train} training image: expected 2 or more")
    reasons: dict[str, str] = {}
    start = _given(weights, reasons) if weights else _start(folder, reasons)
    given: dict[str, Value | None] = {"dataset": f"{FOLDER}{folder.path}", "weights": start}
    source, settings = follow_data.follow_data(None, given)
    usual = recipe.resolve(source, **settings)
    settings |= _batches(usual, folder, reasons) | _epochs(usual, folder, reasons)
    name = re.sub(r"[^\w.-]+", "-", folder.path.name)
    settings["out"] = f"runs/{name}-{usual.method}"
    reasons |= _explained(usual, folder, str(source))
    return Choice(recipe.resolve(source, **settings), reasons)


def weights_here() -> bool:
    """Return whether torch's cache holds published weights of the recipes' network."""
    return any(Path(torch.hub.get_dir(), "checkpoints").glob("resnet18-*.pth"))


def _given(weights: str, reasons: dict[str, str]) -> str:
    """Return the weights as they can be named from any folder."""
    reasons["weights"] = "as --weights said."
    if weights == RANDOM or weights.partition(":")[0] == PRETRAINED:
        return weights
    if not Path(weights).is_file():
        raise ValueError(f"--weights {weights}: there is no such file, nor is it {PRETRAINED!r}")
    return str(Path(weights).resolve())


def _start(folder: Folder, reasons: dict[str, str]) -> str:
    """Fine-tune where that is likely to be better and needs no download."""
    if folder.num_train >= FEW:
        reasons["weights"] = f"from scratch, as {folder.num_train:,} images teach a network enough."
    elif folder.side <= SMALL:
        reasons["weights"] = (
            f"from scratch, as ImageNet's weights know {IMAGE_SIZE} pixels and these are "
            f"{folder.side}."
        )
    elif weights_here():
        reasons["weights"] = (
            f"fine-tune, as {folder.num_train:,} images are few; the published weights are here."
        )
        return PRETRAINED
    else:
        reasons["weights"] = (
            f"from scratch, as no published weights are on this machine. {folder.num_train:,} "
            f"images are few: init --weights {PRETRAINED} writes a recipe that fine-tunes, and "
            "downloads them at its start."
        )
    return RANDOM


def _batches(usual: Config, folder: Folder, reasons: dict[str, str]) -> dict[str, Value | None]:
    """Halve the batch until an epoch has some steps, and sgd's rate with it."""
    size, rate = usual.batch_size, usual.lr
    while size > _SMALLEST_BATCH and folder.num_train < _STEPS * size:
        size //= 2
        rate /= 2 if usual.optimizer == "sgd" else 1
    size = min(size, folder.num_train)
    steps = -(-folder.num_train // size)
    made = f"{steps:,} steps" if steps > 1 else "1 step"
    reasons["batch_size"] = f"{folder.num_train:,} training images make {made} an epoch."
    if rate != usual.lr:
        reasons["lr"] = f"the recipe's {usual.lr:g} for batches of {usual.batch_size}, scaled."
    return {"batch_size": size, "lr": rate, "drop_last": _drop(folder.num_train % size, reasons)}


def _drop(rest: int, reasons: dict[str, str]) -> bool:
    """Leave out a last batch that is too small to mix, or to select two rows from."""
    if 0 < rest < _SMALLEST_REST:
        reasons["drop_last"] = (
            f"an epoch's last batch would be of {rest}, too few to mix and to select from; every "
            "epoch leaves out others."
        )
        return True
    reasons["drop_last"] = "no image is left out."
    return False


def _epochs(usual: Config, folder: Folder, reasons: dict[str, str]) -> dict[str, Value | None]:
    """Take the recipe's, or as many as show the network a number of images."""
    enough = max(_FEWEST_EPOCHS, _IMAGES_SEEN // folder.num_train)
    if enough >= usual.epochs:
        reasons["epochs"] = f"the usual number for {folder.num_train:,} images."
        return {}
    reasons["epochs"] = (
        f"{usual.epochs} in the recipe, fewer for {folder.num_train:,} images: the network sees "
        f"{enough * folder.num_train:,} in all."
    )
    return {"epochs": enough}


def _explained(usual: Config, folder: Folder, source: str) -> dict[str, str]:
    """Explain what follows from the images' size and from the recipe."""
    tuned = usual.weights not in (None, RANDOM)
    size = usual.image_size or IMAGE_SIZE
    if tuned:
        why = "what the weights were trained at."
    elif size < IMAGE_SIZE:
        why = "the images' own: the median of their shorter sides, in steps of 4."
    else:
        why = f"the usual one; the images' shorter sides are about {folder.side} or more."
    crops = "small images are only shifted, as 8 % of them hold nothing to see."
    return {
        "dataset": f"{folder.num_train:,} training and {folder.num_test:,} test images of "
        f"{folder.num_classes:,} classes were found here.",
        "image_size": why,
        "augment": crops if usual.augment == "crop-flip" else f"the recipe {source}'s.",
        "normalize": "ImageNet's mean and deviation: what published weights expect, and near "
        "enough for photographs.",
        "arch": "small enough for one GPU, and patient with few images.",
        "method": "what this package is for; compare measures the others on your images.",
        "out": "named after the folder; --out goes over it.",
    }

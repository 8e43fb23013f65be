"""Follow the data where nobody says it: choose the recipe, and how large images are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entprop_fast.lab.data.datasets import (
    EMBEDDED,
    FILES,
    FOLDER,
    PREFIXES,
    check_known,
    usual_image_size,
)
from entprop_fast.lab.data.image_files import SMALL
from entprop_fast.lab.data.tensor_sets import BY_PATH, TENSORS
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.method_settings import Value
from entprop_fast.lab.training.own_names import DATA, MODEL
from entprop_fast.models.weights import RANDOM

SCRATCH, FINETUNE = "folder", "finetune"


def usual_recipe(dataset: str | None, weights: str | None = None) -> str:
    """Choose a data set's recipe: its own, or `folder` and `finetune` for a folder of images.

    Args:
        dataset: as ``--dataset`` names it; None: none was named.
        weights: to start from, as ``--weights`` names them.
    """
    if dataset in (EMBEDDED, *TENSORS, *FILES):
        return str(dataset)
    starts_from = weights not in (None, RANDOM)
    if dataset is None:
        return FINETUNE if starts_from else recipe.DEFAULT_RECIPE
    if not dataset.startswith((*PREFIXES, DATA)):
        return recipe.DEFAULT_RECIPE  # no data set: whoever loads it says which there are
    return FINETUNE if starts_from else SCRATCH


def follow_data(
    source: str | Path | None, given: Mapping[str, Any]
) -> tuple[str | Path, dict[str, Any]]:
    """Choose a command's recipe and the settings over it, one way for all commands.

    Args:
        source: the recipe that was named, None: none was.
        given: settings that were named.

    Returns:
        The recipe, and the settings with those that follow from images in a folder: a network of
        ours that starts from nothing sees them at their own size where that is below 224 pixels.

    Raises:
        ValueError: a recipe that cannot be read, a data set that is none.
    """
    settings = dict(given)
    own_network = str(given.get("arch", "")).startswith(MODEL)
    if own_network and source is None and settings.get("normalize") is None:
        settings["normalize"] = "none"  # it takes images in [0, 1], as it says
    source = source or usual_recipe(_text(given.get("dataset")), _text(given.get("weights")))
    table = recipe.read_recipe(source)
    both = table | {name: value for name, value in settings.items() if value is not None}
    dataset = str(both.get("dataset", ""))
    if dataset and not dataset.startswith(DATA):
        check_known(dataset)
    if dataset.startswith(tuple(BY_PATH)) and source == SCRATCH:
        if settings.get("normalize") is None:
            settings["normalize"] = "none"  # ImageNet's is of three channels
    if not dataset.startswith(FOLDER) or "image_size" in both:
        return source, settings
    if both.get("weights") not in (None, RANDOM) or ":" in str(both.get("arch", "")):
        return source, settings  # published weights, timm's and torchvision's networks: 224 pixels
    size = usual_image_size(dataset, _text(both.get("data_dir")))
    if size is not None:
        settings["image_size"] = size
        # Cropped as CIFAR's are: 8 % of so few pixels hold nothing to see.
        if size <= SMALL and source == SCRATCH and settings.get("augment") is None:
            settings["augment"] = "crop-flip"
    return source, settings


def _text(value: Value | None) -> str | None:
    return None if value is None else str(value)

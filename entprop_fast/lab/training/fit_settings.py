"""Sort what `entprop_fast.fit` is given into settings of a run and options of its method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from entprop_fast.lab.data.given_loader import rows_of
from entprop_fast.lab.training.config import SETTINGS
from entprop_fast.lab.training.given_data import Given
from entprop_fast.lab.training.method_settings import complete, methods_by_option, settable
from entprop_fast.methods import METHODS, image_units
from entprop_fast.name_errors import unknown
from entprop_fast.options import create, options_of

USUAL_BATCH = 128
USUAL_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}

# Settings of a command's run that the arguments stand in place of, or that have nothing to set.
_NOT_HERE = {
    **dict.fromkeys(("arch", "weights"), "the network is model"),
    **dict.fromkeys(("dataset", "data_dir", "image_size", "train_size"), "the images are train"),
    "test_size": "the test images are validation",
    "normalize": "normalization=(mean, std) says what images went through",
    "patience": "early stopping goes by training images that only the commands hold out",
    "generator": "seed decides every draw",
}


def sorted_keywords(
    method: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sort keywords: settings of the run, all options that text can say, and the other options.

    Raises:
        ValueError, TypeError: there is no such keyword, or its value is not valid.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    for name in given:
        if name in _NOT_HERE:
            raise TypeError(f"{name}={given[name]!r}: {_NOT_HERE[name]}")
    keywords = {*SETTINGS, *options_of(METHODS[method].Options)}
    for name in given:
        if name not in keywords | methods_by_option().keys():  # of no method at all
            raise TypeError(str(unknown("keyword", name, sorted(keywords - _NOT_HERE.keys()))))
    settings = {name: value for name, value in given.items() if name in SETTINGS}
    options = {name: value for name, value in given.items() if name not in SETTINGS}
    texts = {
        name: value
        for name, value in options.items()
        if name in settable(method) and not isinstance(value, nn.Module)
    }
    objects = {name: value for name, value in options.items() if name not in texts}
    said = {name: value for name, value in options.items() if name != "criterion"}
    create(METHODS[method].Options, said, owner=f"method {method!r}")  # before anything is done
    return settings, complete(method, texts), objects


def settings_of_loader(
    loader: DataLoader[Any], settings: Mapping[str, Any], batch_size: int | None
) -> dict[str, Any]:
    """Return the settings that a loader decides.

    Raises:
        ValueError: one of them was given, too.
    """
    given = {name: settings[name] for name in ("drop_last", "workers") if name in settings}
    if batch_size is not None:
        given["batch_size"] = batch_size
    for name, value in given.items():
        raise ValueError(f"{name}={value!r}: train is a DataLoader, which has its own")
    return {"batch_size": rows_of(loader), "drop_last": bool(loader.drop_last)}


def default_batch_size(train: Any) -> int:
    """Return the rows of a batch where nobody says how many."""
    return max(1, min(USUAL_BATCH, len(train[0] if isinstance(train, tuple) else train)))


def name_of_data(train: Given) -> str:
    """Return what given images are called in a run's files."""
    if isinstance(train, tuple):
        return "tensors"
    return type(train.dataset if isinstance(train, DataLoader) else train).__name__


def per_channel(
    normalization: tuple[Any, Any] | None,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std with as many numbers each."""
    if image_units.normalization(normalization) is None or normalization is None:
        return None
    mean, std = (torch.as_tensor(part).cpu().double().flatten().tolist() for part in normalization)
    channels = max(len(mean), len(std))
    mean, std = (part * channels if len(part) == 1 else part for part in (mean, std))
    return tuple(mean), tuple(std)

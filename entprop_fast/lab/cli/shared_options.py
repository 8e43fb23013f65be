"""Declare the options that several commands have in common, each once."""

from __future__ import annotations

from typing import Any

from entprop_fast.options import option


def recipe_option() -> Any:
    """Declare ``--recipe`` as every command that trains has it."""
    return option(
        None,
        "Recipe of the other settings: a name or the path of a .toml. Left out, it is the data "
        "set's own, folder for images of your own, finetune for those with --weights, digits "
        "without --dataset.",
    )


def model_option() -> Any:
    """Declare ``--model`` as every command that builds networks has it."""
    return option(
        None,
        "Network of your own in place of --arch: MODULE:FUNCTION, called with num_classes, and "
        "in_channels where it takes them.",
        group="network",
    )


def data_option() -> Any:
    """Declare ``--data`` as every command that reads images has it."""
    return option(
        None,
        "Images of your own in place of --dataset: MODULE:FUNCTION, which gives (train, test), "
        "each a torch Dataset or (images, labels).",
        group="data",
    )

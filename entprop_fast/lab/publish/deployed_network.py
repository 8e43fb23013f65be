"""Load the network that a run deploys, from the run or from what was exported of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

from torch import nn

from entprop_fast.lab.training.deploy import NetworkSpec, Own
from entprop_fast.lab.training.load_network import load_network
from entprop_fast.layers import strip_auxiliary


def load(path: str | Path, *, model: Own | None = None) -> tuple[nn.Module, NetworkSpec]:
    """Load a trained network, plain and in eval mode, on the CPU.

    ::

        network, spec = entprop_fast.load("runs/digits-wrn10_0.5-entprop-0")
        image = spec.preprocessing("three.png")  # float32 [C, H, W], as in the run's evaluation
        print(spec.classes[network(image[None]).argmax()])

    Args:
        path: a run folder, its ``checkpoint.pt`` or ``model.safetensors``, or the folder of an
            export.
        model: where the run trained a network of your own, the module that takes the weights, in
            place, or a function of ``num_classes`` and ``in_channels`` that makes it: no name out
            of a file is imported.

    Returns:
        The network, from images ``[N, C, H, W]`` to logits ``[N, classes]``, and what is known of
        it: `classes`, `preprocessing`, `arch`, `dataset`, ...

    Raises:
        ValueError: corrupt, truncated, or no network of a run.
        FileNotFoundError: nothing is there.

    Warns:
        UserWarning: the training was not whole, or a checkpoint is corrupt and the previous one is
            taken.
    """
    if path == "":
        raise ValueError("path='': expected the name of a run folder or a file")
    return load_plain(Path(path), lambda text: warnings.warn(text, stacklevel=4), model)


def load_plain(
    path: Path, say: Callable[[str], None], model: Own | None = None
) -> tuple[nn.Module, NetworkSpec]:
    """Do the same, and tell `say` in the place of a warning."""
    network, spec, _ = load_network(path, say, model=model, deployed=True)
    if not (model is None or isinstance(model, nn.Module) or spec.own):
        raise ValueError(f"model is given, and arch {spec.arch!r} of {path} needs none")
    return strip_auxiliary(network).eval(), spec

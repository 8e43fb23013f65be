"""Say in a command's first lines which recipe it takes, and the settings that decide most."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from entprop_fast.lab.data.datasets import EMBEDDED
from entprop_fast.lab.data.digits import SIDE as DIGITS_SIDE
from entprop_fast.lab.data.image_files import IMAGE_SIZE
from entprop_fast.lab.data.tensor_sets import BY_PATH, TENSORS
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.own_names import DATA
from entprop_fast.methods import default_eps
from entprop_fast.models.weights import RANDOM

# Radii that are usual for images of up to so many pixels: in smaller ones 1/255 is not seen.
_TINY = 16
_USUAL = {True: (4 / 255, 64 / 255), False: (0.5 / 255, 16 / 255)}  # tiny, or not

_SHOWN = ("k", "n", "eps", "alpha", "mixup", "cutmix", "jsd", "p_adv", "replays")
_RADII = ("eps", "alpha")
_FROM_SCRATCH_LR = 0.01  # of SGD: weights that were learned do not survive more


def announce(source: str | Path, config: Config) -> list[str]:
    """Name the recipe and its main values in a line, the method's in another; then warn."""
    return [settings(source, config), method(config), *warnings([config])]


def settings(source: str | Path, config: Config, augment: str | None = None) -> str:
    """Write a line: recipe, network, images, epochs, optimizer.

    Args:
        source: of the settings.
        config: the settings.
        augment: what to say in place of theirs, where it is not that of all runs.
    """
    side = pixels(config)
    shown = "images as they come" if side is None else f"{side} pixels"
    weights = "" if config.weights in (None, RANDOM) else f" from {config.weights}"
    return (
        f"recipe {source}: {config.arch}{weights}, {shown}, augment "
        f"{augment or config.augment}, {config.epochs} epochs, batches of {config.batch_size}, "
        f"{config.optimizer}, lr {config.lr:g} ({config.schedule})"
    )


def method(config: Config) -> str:
    """Write a line: the method and its main options, radii in 1/255."""
    options = dict(config.options)
    if (eps := radius(config)) is not None:
        options["eps"] = eps
    if not options.get("jsd"):
        options.pop("jsd", None)
    shown = [f"{name} {_value(name, options[name])}" for name in _SHOWN if name in options]
    return f"method {config.method}{': ' if shown else ''}{', '.join(shown)}"


def warnings(configs: Iterable[Config]) -> Iterator[str]:
    """Name what is probably not meant, once each: a radius far from usual, a rate that unlearns."""
    said = set()
    for config in configs:
        for text in (_far_radius(config), _unlearning(config)):
            if text and text not in said:
                said.add(text)
                yield f"warning: {text}"


def pixels(config: Config) -> int | None:
    """Return height and width of the images that the network sees; None: not known before."""
    if config.dataset.startswith((DATA, *BY_PATH)):
        return None
    if config.dataset == EMBEDDED:
        return DIGITS_SIDE
    if config.dataset in TENSORS:
        return TENSORS[config.dataset].side
    return config.image_size or IMAGE_SIZE


def radius(config: Config) -> float | None:
    """Return the method's eps, also where it follows from other options; None: it has none."""
    options = config.options
    if "eps" in options:
        return float(options["eps"])
    if "alpha" in options:
        return default_eps(int(options.get("n", 1)), float(options["alpha"]))
    return None


def _value(name: str, value: object) -> str:
    if name in _RADII and isinstance(value, float):
        return f"{value * 255:.4g}/255"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _far_radius(config: Config) -> str:
    eps, side = radius(config), pixels(config)
    if eps is None or eps == 0 or side is None:
        return ""
    low, high = _USUAL[side <= _TINY]
    if low <= eps <= high:
        return ""
    return (
        f"eps {_value('eps', eps)} is far from the usual {low * 255:g}/255 to {high * 255:g}/255 "
        f"for images of {side} pixels"
    )


def _unlearning(config: Config) -> str:
    if config.weights in (None, RANDOM) or config.optimizer != "sgd":
        return ""
    if config.lr <= _FROM_SCRATCH_LR or config.dataset == EMBEDDED:
        return ""
    return (
        f"sgd at lr {config.lr:g} unlearns the weights that the run starts from: --recipe "
        f"finetune, or a smaller --lr"
    )

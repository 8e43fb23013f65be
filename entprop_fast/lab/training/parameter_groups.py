"""Split a network's parameters into groups: a smaller rate for early layers, decay for matrices."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.models.normalized import core

SCALE = "lr_scale"  # of a group: what the schedule's learning rate is multiplied by; timm's name

_CONTAINERS = (nn.Sequential, nn.ModuleList)  # exactly: what inherits from them is a block


def parameter_groups(
    model: nn.Module,
    others: Iterable[nn.Parameter] = (),
    *,
    weight_decay: float,
    norm_decay: bool = True,
    layer_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Return groups for an optimiser: every parameter once.

    A layer's learning rate is ``layer_decay ** (layers above it)`` times the schedule's. The
    auxiliary half of a norm has the layer of its main half.

    Args:
        model: the network, behind its normalisation or not.
        others: parameters of the loss; they are the top layer's.
        weight_decay: of each group that has any.
        norm_decay: decay what has one dimension, too (norms, biases), and what a network of timm
            names in ``no_weight_decay()``.
        layer_decay: in (0, 1]; None: one rate for all.
    """
    network = core(model)
    layers = layers_of(network) if layer_decay is not None else {}
    top = max(layers.values(), default=0)
    spared = _spared(network)
    named = [*network.named_parameters(), *(("", one) for one in others)]
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in named:
        layer = layers.get(name, top)
        decays = norm_decay or (parameter.ndim > 1 and name not in spared)
        group = groups.setdefault(
            (layer, decays), {"params": [], "weight_decay": weight_decay if decays else 0.0}
        )
        if layer_decay is not None:
            group[SCALE] = layer_decay ** (top - layer)
        group["params"].append(parameter)
    return list(groups.values())


def layers_of(network: nn.Module) -> dict[str, int]:
    """Return the layer of each parameter by its name: 0 for the stem, the head's is the highest.

    By the network's own ``group_matcher`` where it is timm's; else each block is a layer, which is
    what a ``Sequential`` or ``ModuleList`` holds, and what stands between two belongs to the first.
    """
    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        return _by_blocks(network)
    timm_models: Any = importlib.import_module("timm.models")  # loaded already: it is timm's
    found = timm_models.group_parameters(network, matcher(coarse=False), reverse=True)
    return _with_main_halves(network, found)


def _by_blocks(network: nn.Module) -> dict[str, int]:
    blocks = [f"{name}." for name in _blocks(network, "")]
    found: dict[str, int] = {}
    last = 0
    for name, _ in network.named_parameters():
        own = next((i for i, block in enumerate(blocks, start=1) if name.startswith(block)), None)
        if own is None and blocks and last == len(blocks):
            own = last + 1  # past the last block: the head
        last = last if own is None else own
        found[name] = last
    return found


def _blocks(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        if type(child) in _CONTAINERS:
            yield from _blocks(child, f"{prefix}{name}.")
        elif type(module) in _CONTAINERS:
            if next(child.parameters(), None) is not None:
                yield f"{prefix}{name}"
        else:
            yield from _blocks(child, f"{prefix}{name}.")


def _with_main_halves(network: nn.Module, layers: dict[str, int]) -> dict[str, int]:
    """Give auxiliary halves their main half's layer, whatever a pattern makes of their names."""
    found = dict(layers)
    for name, main in _aux_names(network):
        if main in layers:
            found[name] = layers[main]
    return found


def _aux_names(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the name of each parameter of an auxiliary half, and of the main half's twin."""
    for place, module in network.named_modules():
        if isinstance(module, DualNorm):
            prefix = f"{place}." if place else ""
            for name, _ in module.aux.named_parameters():
                yield f"{prefix}{module.aux_name}.{name}", f"{prefix}{name}"


def _spared(network: nn.Module) -> set[str]:
    """Return the names that a network of timm keeps weight decay from."""
    names = getattr(network, "no_weight_decay", None)
    return set(names()) if callable(names) else set()

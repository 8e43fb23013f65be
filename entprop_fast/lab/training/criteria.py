"""Create the loss that a run's settings name, in place of cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from entprop_fast import name_errors
from entprop_fast.methods import GPaCo

CRITERIA: dict[str, type[GPaCo]] = {"gpaco": GPaCo}
DEFAULT = "cross_entropy"
NAMES = (DEFAULT, *CRITERIA)


def create_criterion(name: str, num_classes: int) -> nn.Module | None:
    """Create a fresh criterion for so many classes; None for the methods' own cross-entropy.

    Raises:
        ValueError: there is none of this name.
    """
    if name == DEFAULT:
        return None
    if name not in CRITERIA:
        raise name_errors.unknown("criterion", name, NAMES)
    return CRITERIA[name](num_classes)


def keywords(options: Mapping[str, Any], num_classes: int, device: torch.device) -> dict[str, Any]:
    """Turn options of settings into keywords of a method: the criterion's name into a module.

    Raises:
        ValueError: see `create_criterion`.
    """
    criterion = create_criterion(str(options["criterion"]), num_classes)
    given = {name: value for name, value in options.items() if name != "criterion"}
    return given | {"criterion": criterion if criterion is None else criterion.to(device)}


def learned(model: nn.Module, criterion: nn.Module | None) -> list[nn.Parameter]:
    """List what the optimizer of a run holds: the parameters of the network and of its loss."""
    return [p for module in (model, criterion) if module is not None for p in module.parameters()]

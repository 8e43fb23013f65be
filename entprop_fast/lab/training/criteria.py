"""Create the loss that a run's settings name, in place of cross-entropy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from entprop_fast.methods import GPaCo

CRITERIA: dict[str, type[GPaCo]] = {"gpaco": GPaCo}
DEFAULT = "cross_entropy"
NAMES = (DEFAULT, *CRITERIA)


def keywords(options: Mapping[str, Any], num_classes: int, device: torch.device) -> dict[str, Any]:
    """Turn options of settings into keywords of a method: the criterion's name into a module."""
    name = str(options["criterion"])
    criterion = None if name == DEFAULT else CRITERIA[name](num_classes).to(device)
    given = {name: value for name, value in options.items() if name != "criterion"}
    return given | {"criterion": criterion}


def learned(model: nn.Module, criterion: nn.Module | None) -> list[nn.Parameter]:
    """List what the optimizer of a run holds: the parameters of the network and of its loss."""
    return [p for module in (model, criterion) if module is not None for p in module.parameters()]

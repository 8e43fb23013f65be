"""Take the network of one's own that a run was trained with, ``--model``, into a command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from entprop_fast.lab.training.user_code import network_maker
from entprop_fast.options import option


def trained_model_option() -> Any:
    """Declare ``--model`` as every command that loads trained networks has it."""
    return option(
        None,
        "Network of your own that a run was trained with: MODULE:FUNCTION, called with "
        "num_classes, and in_channels where it takes them.",
        group="network",
    )


def own_network(name: str | None) -> Callable[..., nn.Module] | None:
    """Return what makes the network that ``--model`` names; None where it was not given."""
    return None if name is None else network_maker(name)

"""What goes into every method, and what comes out of a step."""

from typing import Literal, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from entprop_fast.methods.image_units import Channels


class StepResult(NamedTuple):
    """What one step reports: detached 0-dim tensors on the device, that no later step overwrites.

    Of several processes each has the values of its own rows; with ``selection="global"`` the
    entropies are those of all rows.

    Attributes:
        loss: mean loss of the main pass.
        aux_loss: unweighted mean loss of the last auxiliary pass; 0 without one.
        correct: rows of the main pass whose prediction is their original label.
        entropy_selected: mean prediction entropy (nats) of the selected rows; NaN without any.
        entropy_unselected: the same of the others.
    """

    loss: Tensor
    aux_loss: Tensor
    correct: Tensor
    entropy_selected: Tensor
    entropy_unselected: Tensor


class _Unused(TypedDict, total=False):
    """The options that every method takes; see `Method`."""

    input_range: tuple[float, float]
    normalization: tuple[Channels, Channels] | None
    amp: Literal["bf16"] | None
    generator: torch.Generator | None
    capture: Literal["auto", "on", "off"]
    check: bool | None
    criterion: nn.Module | None
    label_smoothing: float
    max_grad_norm: float | None

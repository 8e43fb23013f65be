"""Score a network of any kind: images in [0, 1] in, logits out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast.eval_mode import evaluating
from entprop_fast.lab.data.image_values import Normalize
from entprop_fast.logits import logits_of

Normalization = tuple[Sequence[float], Sequence[float]]


class Scored(nn.Module):
    """``model`` on float32 images ``[B, C, H, W]`` in [0, 1].

    It is given images of its own dtype, in memory of its own (some networks normalise in place).

    Args:
        model: returns logits ``[B, classes]`` or an object with ``.logits``.
        normalization: (mean, std) per channel that its inputs went through, in the units of
            `input_range`.
        input_range: lowest and highest value of its images before that.
    """

    def __init__(
        self,
        model: nn.Module,
        normalization: Normalization | None,
        input_range: tuple[float, float],
    ) -> None:
        super().__init__()
        self.model = model
        held = next(
            (one for one in chain(model.parameters(), model.buffers()) if one.is_floating_point()),
            torch.zeros(0),
        )
        self.device, self.dtype = held.device, held.dtype
        self.low, self.width = input_range[0], input_range[1] - input_range[0]
        self._row_by_row = False  # found when it is needed
        self._normalize = None if normalization is None else Normalize(*normalization, held.device)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, classes]`` of the model."""
        x = self.as_given(images)
        x = x.clone() if x is images else x
        return logits_of(self._output(x), len(images))

    def as_given(self, images: Tensor) -> Tensor:
        """Return images in [0, 1] as the network takes them: its range, normalised, its dtype."""
        x = images
        if (self.low, self.width) != (0.0, 1.0):
            x = self.low + self.width * x
        if self._normalize is not None:
            x = self._normalize(x)
        return x.to(self.dtype)

    def _output(self, x: Tensor) -> Any:
        if self._row_by_row:
            return self.model(x.contiguous())
        try:
            return self.model(x)
        except RuntimeError as error:
            if not needs_rows(error):
                raise
        self._row_by_row = True
        return self.model(x.contiguous())


def needs_rows(error: RuntimeError) -> bool:
    """Return whether a network failed on channels_last images, as ``x.view(len(x), -1)`` does."""
    return "view size is not compatible" in str(error)


def refusal(network: nn.Module, shape: Sequence[int]) -> str | None:
    """Return why a network cannot take an image of a shape ``(C, H, W)``; None where it can."""
    held = next(chain(network.parameters(), network.buffers()), torch.zeros(0))
    dtype = held.dtype if held.is_floating_point() else torch.float32
    try:
        with evaluating(network), torch.no_grad():
            network(torch.zeros(1, *shape, dtype=dtype, device=held.device))
    except torch.OutOfMemoryError:
        return None
    except RuntimeError as error:
        return " ".join(str(error).split())
    return None

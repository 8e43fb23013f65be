"""Average a network's weights over the steps of its training."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights:
    """Keep an exponential moving average of a network: ``e <- decay * e + (1 - decay) * w``.

    It starts as the weights after the first step. Running statistics are averaged like the
    parameters, those of both halves of a dual norm; counters are the network's own. torch's
    ``AveragedModel`` does the same, but moves its count to the device in every step, which waits
    for the device.

    Args:
        model: the network that is trained; it is copied.
        decay: in (0, 1).

    Attributes:
        model: the averaged network, with the counters of the last `read`.
        updates: steps that were averaged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model)
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        self.updates = 0
        self._average = get_ema_multi_avg_fn(decay)
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        self._averaged = [(mean, now) for mean, now in pairs if mean.is_floating_point()]
        self._counters = [(mean, now) for mean, now in pairs if not mean.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network's weights as they are after a step; the host waits for nothing."""
        means, values = (list(column) for column in zip(*self._averaged, strict=True))
        if self.updates:
            self._average(means, values, self.updates)
        else:
            for mean, value in self._averaged:
                mean.copy_(value)
        self.updates += 1

    @torch.no_grad()
    def read(self) -> nn.Module:
        """Return the averaged network, its counters brought up to date."""
        for mean, now in self._counters:
            mean.copy_(now)
        return self.model

    def state_dict(self) -> dict[str, object]:
        """Return what a resumed run needs."""
        return {"updates": self.updates, "model": self.read().state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: it is of another network.
        """
        if type(state["updates"]) is not int or state["updates"] < 0:
            raise ValueError(f"the average's updates are {state['updates']!r}")
        self.model.load_state_dict(state["model"])  # type: ignore[arg-type]
        self.updates = state["updates"]


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for tensor in chain(model.parameters(), model.buffers()):
        yield tensor.detach()

"""Keep the network that scores best on held-out images, and say when to stop waiting for better."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class BestNetwork:
    """Hold the best network so far: that of the first epoch with the highest Hscore.

    Args:
        patience: epochs without a better one after which training ends; None: never.

    Attributes:
        epoch: of the best network, from 1; 0 before the first.
        hscore: its Hscore on held-out images, in percent.
        weights: its state dict, on the CPU.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.epoch, self.hscore = 0, -math.inf
        self.weights: dict[str, Tensor] = {}

    def offer(self, epoch: int, hscore: float, network: nn.Module) -> bool:
        """Take the network of an epoch if it is the best so far; return whether it is."""
        if hscore <= self.hscore:
            return False
        self.epoch, self.hscore = epoch, hscore
        state = network.state_dict()
        self.weights = {name: value.detach().to("cpu", copy=True) for name, value in state.items()}
        return True

    def out_of_patience(self, epochs: int) -> bool:
        """Return whether training ends after so many epochs."""
        return self.patience is not None and epochs - self.epoch >= self.patience

    def said(self, epochs: int) -> str:
        """Say in a line why a run of so many epochs ended, and which network it deploys."""
        why = f"no better one for {self.patience} epochs, " if self.out_of_patience(epochs) else ""
        return (
            f"{why}trained for {epochs} epochs: the network of epoch {self.epoch} is deployed "
            f"(held-out Hscore {self.hscore:.1f})"
        )

    def network(self, like: nn.Module) -> nn.Module:
        """Return a copy of `like` with the best weights."""
        made = copy.deepcopy(like)
        made.load_state_dict(self.weights)
        return made

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"epoch": self.epoch, "hscore": self.hscore, "model": self.weights}

    def load_state_dict(self, state: Mapping[str, Any], epochs: int) -> None:
        """Take over what `state_dict` gave after so many epochs.

        Raises:
            ValueError: it says what cannot be.
        """
        epoch, hscore = state["epoch"], state["hscore"]
        if type(epoch) is not int or not 0 <= epoch <= epochs:
            raise ValueError(f"the best epoch is {epoch!r} of {epochs}")
        if type(hscore) is not float:
            raise ValueError(f"the best Hscore is {hscore!r}")
        self.epoch, self.hscore, self.weights = epoch, hscore, dict(state["model"])


def deployed_weights(state: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """Return the weights in a run's checkpoint that it would deploy: best, averaged or last."""
    best, average = state.get("best"), state.get("ema")
    if best is not None and best["epoch"]:
        weights: Mapping[str, Tensor] = best["model"]
    else:
        weights = state["model"] if average is None else average["model"]
    return weights


def ended(state: Mapping[str, Any]) -> bool:
    """Return whether the run of a checkpoint is trained to its end."""
    done, settings, best = state["epoch"], state["config"], state.get("best")
    if "hscore" in state:  # a best.pt, whole as it is
        return True
    patience = settings.get("patience")
    if best is not None and patience is not None and done - best["epoch"] >= patience:
        return True
    return bool(done >= settings["epochs"])

"""Study whether other transformations could stand in for MixUp, or for the free step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from entprop_fast.lab.corruptions.filters import pixel_grid, warp
from entprop_fast.lab.experiments.studies.form import Options, Row, Study, Table
from entprop_fast.lab.experiments.studies.probe import MakeProbe, Probe
from entprop_fast.lab.experiments.studies.runs import Settings, run_grid
from entprop_fast.lab.experiments.studies.variant_scores import (
    draw_scores,
    hscores_in_words,
    score_table,
)
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.device import resolve_amp
from entprop_fast.lab.training.method_settings import Value
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.methods import EntProp, StepResult
from entprop_fast.methods.image_units import Ball
from entprop_fast.methods.network import Network

# Rows and their gradients [m, C, H, W], the radius, and the source of random numbers.
Transform = Callable[[Tensor, Tensor, float, torch.Generator | None], Tensor]

BASELINE = "MixUp, free step"
MIXING: dict[str, dict[str, Value]] = {
    BASELINE: {},
    "no mixing, free step": {"mixup": 0.0},
    "CutMix, free step": {"mixup": 0.0, "cutmix": 1.0},
}
_GAMMA, _ZOOM = 2.0, 1.25  # at most, and at least one over it


def _none(x: Tensor, gradient: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    return x.clone()


def _random_signs(
    x: Tensor, gradient: Tensor, eps: float, generator: torch.Generator | None
) -> Tensor:
    """Take as long a step in every pixel, in a direction that knows nothing of the loss."""
    draws = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + eps * (draws - 0.5).sign()


def _downhill(x: Tensor, gradient: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """Take the free step the other way, which makes the loss smaller."""
    return x - eps * gradient.sign()


def _gamma(x: Tensor, gradient: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    return x.clamp(0, 1) ** _factor(x, _GAMMA, generator)


def _zoom(x: Tensor, gradient: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """Zoom about the centre."""
    height, width = x.shape[2:]
    columns, rows = pixel_grid(x)
    factor = _factor(x, _ZOOM, generator)[:, 0]
    across, down = (width - 1) / 2, (height - 1) / 2
    return warp(x, (columns - across) * factor + across, (rows - down) * factor + down)


def _factor(x: Tensor, most: float, generator: torch.Generator | None) -> Tensor:
    """Draw one for each row, between ``1 / most`` and ``most``, evenly in its logarithm."""
    draws = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device, dtype=x.dtype)
    return ((2 * draws - 1) * math.log(most)).exp()


# None of them is among the corruptions that RA is measured on.
TRANSFORMS: dict[str, Transform] = {
    "none": _none,
    "random signs": _random_signs,
    "downhill step": _downhill,
    "gamma": _gamma,
    "zoom": _zoom,
}


# In place of MixUp there is no gradient yet.
IN_PLACE_OF_MIXUP = ("random signs", "gamma", "zoom")


class Transformed(EntProp):
    """Train as EntProp with another transformation in place of MixUp or of the free step; n = 1.

    Args:
        model: see `EntProp`.
        optimizer: see `EntProp`.
        batch: what it does to the whole batch before it is mixed, None for nothing.
        rows: what it does to the selected rows, None for the free step.
        **options: see `EntProp`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        batch: Transform | None = None,
        rows: Transform | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, **options)
        self._batch, self._rows = batch, rows

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        if self._batch is not None:
            images = self._transformed(self._batch, images, torch.zeros_like(images))
        return super()._passes(net, images, labels)

    def _first_step(self, x: Tensor, gradient: Tensor, index: Tensor, ball: Ball) -> Tensor:
        if self._rows is None:
            return super()._first_step(x, gradient, index, ball)
        return self._transformed(self._rows, x[index], gradient[index])

    def _transformed(self, transform: Transform, x: Tensor, gradient: Tensor) -> Tensor:
        o = self.options
        moved = transform(x.detach(), gradient, self.eps, o.generator)
        return moved.clamp(*o.input_range).contiguous(memory_format=torch.channels_last)


class Replaced(Probe):
    """Train the run with a `Transformed` in place of its method; names as in `TRANSFORMS`."""

    def __init__(self, batch: str | None = None, rows: str | None = None) -> None:
        self._names = {"batch": batch, "rows": rows}

    def attach(self, trainer: Trainer) -> None:
        """Replace the method; the random numbers go on where they are."""
        super().attach(trainer)
        transforms = {
            place: None if name is None else TRANSFORMS[name] for place, name in self._names.items()
        }
        before = trainer.method
        trainer.method = Transformed(
            trainer.model,
            trainer.optimizer,
            amp=resolve_amp(trainer.config.amp, trainer.device),
            capture="off",
            generator=before.generator,
            **transforms,
            **trainer.method_options,
        )
        trainer.method.load_state_dict(before.state_dict())


def measure(options: Options, reporter: Reporter) -> Table:
    """Train with other transformations in place of MixUp, and of the free step."""
    base: dict[str, Value] = {"method": "entprop", "n": 1}
    variants: dict[str, Settings] = {name: base | own for name, own in MIXING.items()}
    probes: dict[str, MakeProbe] = {}
    for name in IN_PLACE_OF_MIXUP:
        label = f"{name}, free step"
        variants[label] = {**base, "mixup": 0.0}
        probes[label] = functools.partial(Replaced, batch=name)
    for name in TRANSFORMS:
        label = f"MixUp, {name}"
        variants[label], probes[label] = base, functools.partial(Replaced, rows=name)
    return score_table(run_grid(options, variants, reporter, probes), BASELINE)


def sentence(rows: Sequence[Row]) -> str:
    """Compare the Hscore of each replacement with EntProp's."""
    return f"{hscores_in_words(rows, BASELINE)}."


def draw(figure: Figure, table: Table) -> None:
    """Draw Hscore by transformation, and against its cost."""
    draw_scores(figure, table, "mixing, what moves the selected rows")


STUDY = Study(
    "transforms",
    "Could other transformations stand in for MixUp, or for the free step?",
    "CutMix, random signs, gamma, zoom or nothing for the one; nothing, random signs, the step "
    "downhill, gamma, zoom for the other",
    measure,
    sentence,
    draw,
)

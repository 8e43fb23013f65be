"""Could other transformations stand in for MixUp, or for the free step?"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from entprop_fast.data.filters import pixel_grid, warp
from entprop_fast.methods import EntProp
from entprop_fast.run.progress import Reporter
from entprop_fast.run.trainer import Trainer, resolve_amp
from entprop_fast.studies.differences import against_baseline, baseline_of
from entprop_fast.studies.form import Options, Row, Study, Table, cell
from entprop_fast.studies.runs import Probe, Record, Settings, run_grid
from entprop_fast.studies.sweep import draw_scores, score_rows

# Rows and their gradients [m, C, H, W], the radius, and the source of random numbers.
Transform = Callable[[Tensor, Tensor, float, torch.Generator | None], Tensor]

BASELINE = "MixUp, free step"
MIXING: dict[str, Settings] = {
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
    """As long a step in every pixel, in a direction that knows nothing of the loss."""
    draws = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return x + eps * (draws - 0.5).sign()


def _downhill(x: Tensor, gradient: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """The free step the other way, which makes the loss smaller."""
    return x - eps * gradient.sign()


def _gamma(x: Tensor, gradient: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    return x.clamp(0, 1) ** _factor(x, _GAMMA, generator)


def _zoom(x: Tensor, gradient: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """About the centre."""
    height, width = x.shape[2:]
    columns, rows = pixel_grid(x)
    factor = _factor(x, _ZOOM, generator)[:, 0]
    across, down = (width - 1) / 2, (height - 1) / 2
    return warp(x, (columns - across) * factor + across, (rows - down) * factor + down)


def _factor(x: Tensor, most: float, generator: torch.Generator | None) -> Tensor:
    """One for each row, between ``1 / most`` and ``most``, evenly in its logarithm."""
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


class Transformed(EntProp):
    """EntProp whose selected rows are transformed in another way; one auxiliary pass.

    Args:
        model: see `EntProp`.
        optimizer: see `EntProp`.
        transform: what it does to them.
        **options: see `EntProp`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        transform: Transform,
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, **options)
        self._transform = transform

    def _first_step(self, x: Tensor, gradient: Tensor, index: Tensor) -> Tensor:
        rows = self._transform(x[index], gradient[index], self.eps, self.generator)
        return rows.clamp(*self.input_range).contiguous(memory_format=torch.channels_last)


class Replaced(Probe):
    """Trains the run with a `Transformed` in place of its method."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def attach(self, trainer: Trainer) -> None:
        """Replace the method; the random numbers go on where they are."""
        super().attach(trainer)
        trainer.method = Transformed(
            trainer.model,
            trainer.optimizer,
            transform=TRANSFORMS[self._name],
            amp=resolve_amp(trainer.config.amp, trainer.device),
            capture="off",
            generator=trainer.method.generator,
            **trainer.method_options,
        )


def measure(options: Options, reporter: Reporter) -> Table:
    """Other mixing with the free step, and MixUp with other transformations."""
    records: dict[str, list[Record]] = {}
    base: Settings = {"method": "entprop", "n": 1}
    mixing = {name: {**base, **settings} for name, settings in MIXING.items()}
    records |= run_grid(options, mixing, reporter)
    for name in TRANSFORMS:
        label = f"MixUp, {name}"
        probe = functools.partial(Replaced, name)
        records |= run_grid(options, {label: base}, reporter, probe)
    return Table(score_rows(records, BASELINE))


def sentence(rows: Sequence[Row]) -> str:
    """Hscore of each replacement against EntProp as it is."""
    return (
        f"Hscore against {BASELINE} ({cell(baseline_of(rows)['Hscore'])}; 95 % interval): "
        f"{against_baseline(rows)}."
    )


def draw(figure: Figure, table: Table) -> None:
    """Hscore by transformation, and against its cost."""
    draw_scores(figure, table.rows, "mixing, what moves the selected rows")


STUDY = Study(
    "transforms",
    "Could other transformations stand in for MixUp, or for the free step?",
    measure,
    sentence,
    draw,
)

"""Say what became of the targets of ops on a GPU; what has no row is unmeasured."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from bench import rows
from bench.ops.cases import CUDA_NORM_SHAPES, CUDA_TARGETS, LARGE
from bench.timing import geometric_mean
from entprop_fast.lab.report.text import markdown_table

BEYOND_CACHE = 20e6  # bytes of a tensor
HALF = 2  # bytes of a value
NORMS = ("norm", "two groups", "norm + add")


@dataclass(frozen=True)
class Aim:
    """Aim at a value of at least so much: the geometric mean of `value` over the rows of a case."""

    text: str
    at_least: float
    where: Mapping[str, object]
    value: Callable[[rows.Row], float]
    percent: bool = False

    def line(self, measured: list[rows.Row]) -> list[str]:
        """Write the target, what was measured, and what became of it."""
        here = [self.value(row) for row in measured if self.where.items() <= row.items()]
        if not here:
            return [self.text, self._shown(self.at_least), "", "unmeasured"]
        found = geometric_mean(here)
        said = "reached" if found >= self.at_least else "missed"
        return [self.text, self._shown(self.at_least), self._shown(found), said]

    def _shown(self, value: float) -> str:
        return f"{value:.0%}" if self.percent else f"{value:.2f}"


def aims() -> Iterator[Aim]:
    """List the targets: norms and perturb_ by copying, norms by others, the loss by eager."""
    where: dict[str, object]
    norms: dict[str, object] = {"layout": "channels_last", "dtype": "bfloat16", "cache": "cold"}
    for shape in CUDA_NORM_SHAPES:
        if HALF * torch.Size(shape).numel() > BEYOND_CACHE:
            where = norms | {"op": "norm", "shape": list(shape)}
            text = f"norm + ReLU, forward and backward, {'x'.join(map(str, shape))}: share of copy"
            yield Aim(text, 0.95, where, lambda row: float(row["of_copy"]), percent=True)
    for images in LARGE:
        where = {"op": f"perturb_ {images[2]} px", "shape": list(images), "cache": "cold"}
        text = f"perturb_, {'x'.join(map(str, images))}: share of copy"
        yield Aim(text, 0.90, where, lambda row: float(row["of_copy"]), percent=True)
    for op in NORMS:
        where = norms | {"op": op}
        text = f"{op}, channels_last, all shapes: times the best of all others"
        yield Aim(text, 1.3, where, lambda row: float(row["best_ratio"]))
    for (op, layout), target in CUDA_TARGETS.items():
        where = {"op": op, "layout": layout, "cache": "warm"}
        yield Aim(f"{op}, all shapes: times torch eager", target, where, lambda row: row["ratio"])


def table(measured: list[rows.Row]) -> str:
    """Write every target."""
    lines = [aim.line(measured) for aim in aims()]
    return markdown_table([["target on a GPU", "at least", "measured", ""], *lines])

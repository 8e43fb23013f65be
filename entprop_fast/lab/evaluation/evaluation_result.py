"""Hold what an evaluation found; accuracies and errors in percent, as its tables print them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from entprop_fast.lab.evaluation import evaluation_tables


@dataclass(frozen=True, kw_only=True)
class Row:
    """Hold the accuracy on one set of images.

    Attributes:
        test: what was tested.
        source: where its images come from: official files, or made here and how.
        accuracy: in percent.
        low, high: its 95 % interval.
        interval: the method of that.
        ece: expected calibration error in percent; None under attack, where it means nothing.
        images: how many.
        note: what a reader must know beside the number.
    """

    test: str
    source: str
    accuracy: float
    low: float
    high: float
    interval: str
    ece: float | None
    images: int
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Hold the scores of one network on one data set.

    Attributes:
        name: of the network.
        dataset: of the clean test set.
        norms: main or aux, those that every number was measured through.
        sa: accuracy on clean images.
        ra: plain mean over kinds and severities; None where no corruption was tested.
        hscore: harmonic mean of the two.
        hscore_interval: 95 %, percentile bootstrap over images; None where it is not known which
            corrupted images are of which clean one.
        corruptions: kind to accuracies of severities 1 to 5.
        extra: likewise, the kinds that are in no mean.
        corruption_source: where these images come from.
        corruption_ece: mean calibration error over kinds and severities.
        mce: mean corruption error over AlexNet's, on the official ImageNet-C only.
        ce: the same of each kind.
        shifts: name of a further set of the same classes to its accuracy, ECE, drop (SA less its
            accuracy) and number of images.
        rows: everything that has an interval, clean images first.
    """

    name: str
    dataset: str
    norms: str
    sa: float
    ra: float | None = None
    hscore: float | None = None
    hscore_interval: tuple[float, float] | None = None
    corruptions: dict[str, list[float]] = field(default_factory=dict)
    extra: dict[str, list[float]] = field(default_factory=dict)
    corruption_source: str = ""
    corruption_ece: float | None = None
    mce: float | None = None
    ce: dict[str, float] = field(default_factory=dict)
    shifts: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON, where what is not a number is null."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def label_of(self, kind: str) -> str:
        """Return a kind's name in tables: frost made here is not the published one."""
        return evaluation_tables.label_of(kind, self.corruption_source)

    def markdown(self) -> str:
        """Write the whole report, in GitHub's Markdown."""
        return evaluation_tables.markdown([self.as_dict()])


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

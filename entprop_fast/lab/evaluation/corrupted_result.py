"""Make RA, Hscore and corruption errors of what was counted on corrupted images."""

from __future__ import annotations

from typing import Any

from entprop_fast.lab.corruptions.suites import Suite
from entprop_fast.lab.data import ImageSet
from entprop_fast.lab.evaluation import intervals
from entprop_fast.lab.evaluation.corruption_error import corruption_errors
from entprop_fast.lab.evaluation.evaluation_result import Row
from entprop_fast.lab.evaluation.metrics import hscore
from entprop_fast.lab.evaluation.running_metrics import CorruptionMetrics, RunningMetrics


def of(
    suite: Suite, metrics: CorruptionMetrics, clean: RunningMetrics, data: ImageSet
) -> tuple[Row, dict[str, Any]]:
    """Return the row of the corrupted images, and the fields of an `Evaluation` on them."""
    shares = metrics.shares()
    values = [value for kind in suite.kinds for value in shares[kind]]
    ra, sa = sum(values) / len(values), clean.correct / clean.total
    by_image, calibration = metrics.by_image(), metrics.ece
    low, high = intervals.mean_by_image(by_image)
    row = Row(
        test=f"corrupted, mean of {len(suite.kinds)} x 5",
        source=suite.source,
        accuracy=100 * ra,
        low=100 * low,
        high=100 * high,
        interval="normal, by image",
        ece=100 * calibration,
        images=suite.images,
    )
    spread = None
    if suite.aligned:
        bounds = intervals.hscore_by_image(clean.right.cpu().double(), by_image)
        spread = (100 * bounds.low, 100 * bounds.high)
    errors: dict[str, float] = {}
    mce = None
    if suite.official and data.official_corruptions == "imagenet-c":
        errors, mce = corruption_errors({kind: shares[kind] for kind in suite.kinds})
    percent = {kind: [100 * one for one in each] for kind, each in shares.items()}
    return row, {
        "ra": 100 * ra,
        "hscore": 100 * hscore(sa, ra),
        "hscore_interval": spread,
        "corruptions": {kind: percent[kind] for kind in suite.kinds},
        "extra": {kind: percent[kind] for kind in suite.extra},
        "corruption_source": suite.source,
        "corruption_ece": 100 * calibration,
        "mce": mce,
        "ce": errors,
    }

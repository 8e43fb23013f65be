"""Collect the studies: one file each, one form, one command (``python -m entprop_fast.study``)."""

from entprop_fast.lab.experiments.studies import (
    bias,
    components,
    entropy,
    norms,
    ood,
    other_transforms,
    ratio,
    score,
    size,
    steps,
)
from entprop_fast.lab.experiments.studies.form import Options, Result, Study

_ALL = (score, ratio, steps, components, entropy, bias, size, norms, ood, other_transforms)
STUDIES: dict[str, Study] = {module.STUDY.name: module.STUDY for module in _ALL}

__all__ = ["STUDIES", "Options", "Result", "Study"]

"""The studies: one file each, one form, one command (``python -m entprop_fast.study``)."""

from entprop_fast.studies import (
    bias,
    components,
    entropy,
    norms,
    ood,
    ratio,
    score,
    size,
    steps,
    transforms,
)
from entprop_fast.studies.form import Options, Result, Study

_ALL = (score, ratio, steps, components, entropy, bias, size, norms, ood, transforms)
STUDIES: dict[str, Study] = {module.STUDY.name: module.STUDY for module in _ALL}

__all__ = ["STUDIES", "Options", "Result", "Study"]

"""Collect the studies: one file each, one form, one command (``python -m entprop_fast.study``)."""

from entprop_fast.lab.experiments.studies import (
    adds,
    affine,
    bias,
    budget,
    entropy,
    norms,
    ood,
    other_transforms,
    score,
    size,
    sweeps,
)
from entprop_fast.lab.experiments.studies.form import Options, Result, Study

_ALL = (
    *(score.STUDY, sweeps.RATIO, sweeps.STEPS, sweeps.PARTS, entropy.STUDY),
    *(bias.STUDY, size.STUDY, budget.STUDY, norms.STUDY, affine.STUDY, ood.STUDY),
    *(other_transforms.STUDY, adds.STUDY),
)
STUDIES: dict[str, Study] = {study.name: study for study in _ALL}

__all__ = ["STUDIES", "Options", "Result", "Study"]

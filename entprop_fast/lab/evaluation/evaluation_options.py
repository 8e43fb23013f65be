"""Choose what an evaluation measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entprop_fast.lab.corruptions.common import SCALES, Scale
from entprop_fast.lab.data.natural_sets import NATURAL
from entprop_fast.lab.evaluation import attacks
from entprop_fast.name_errors import unknown

NORMS = ("main", "aux")
CORRUPTION_CHOICES = ("auto", "official", "generated", "digits", "none")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What to measure beside the accuracy on clean images.

    Args:
        norms: ``main``, what is deployed, or ``aux``, of a model with dual norms.
        corruptions: ``official``: the published files of the data set, in `official_dir`;
            ``generated``: the 15 kinds made here; ``digits``: the ten kinds for digits; ``none``;
            ``auto``: digits for digits, else official where they are, or, where nobody publishes
            any, what `entprop_fast.corrupt` wrote as ``<data set>-c`` (unless `scale` is given);
            else generated.
        scale: of generated ones, ``cifar-c`` or ``imagenet-c``; None: by the images' size.
        extra: the 4 further kinds too, which are in no mean.
        also: further sets in `official_dir`: ``imagenet-a``, ``imagenet-r``, ``stylized``.
        official_dir: folder of downloaded sets.
        cache_dir: keep generated images of a data set in memory there, and use them again.
        pgd: steps of a PGD attack on the clean images; 0: none.
        eps: radius of the attacks, maximum norm, in image units.
        alpha: step of PGD, in image units.
        autoattack: run AutoAttack, if it is installed.
        seed: of generated corruptions and attacks.

    Raises:
        ValueError: an unknown choice, or settings that do not fit together.
        ImportError: AutoAttack was asked for and is not installed.
    """

    norms: str = "main"
    corruptions: str = "auto"
    scale: Scale | None = None
    extra: bool = False
    also: Sequence[str] = ()
    official_dir: str | Path | None = None
    cache_dir: str | Path | None = None
    pgd: int = 0
    eps: float = 8 / 255
    alpha: float = 2 / 255
    autoattack: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.norms not in NORMS:
            raise unknown("norms", self.norms, NORMS)
        if self.corruptions not in CORRUPTION_CHOICES:
            raise unknown("corruptions", self.corruptions, CORRUPTION_CHOICES)
        if self.scale is not None and self.scale not in SCALES:
            raise unknown("scale", self.scale, SCALES)
        for name in self.also:
            if name not in NATURAL:
                raise unknown("also", name, NATURAL)
        if self.pgd < 0:
            raise ValueError(f"pgd = {self.pgd} must be a number of steps, 0 for none")
        for name, value in (("eps", self.eps), ("alpha", self.alpha)):
            if not 0 < value <= 1:
                raise ValueError(
                    f"{name} = {value} must be above 0 and at most 1, in image units (8/255, say)"
                )
        if self.also and self.official_dir is None:
            raise ValueError(f"also = {', '.join(self.also)} needs official_dir, where they are")
        if self.autoattack:
            attacks.autoattack_class()  # before hours of work, not after

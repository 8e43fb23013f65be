"""Say what an evaluation measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from entprop_fast.lab.corruptions.common import Scale
from entprop_fast.lab.data.natural_sets import NATURAL
from entprop_fast.lab.data.shift_sets import read_shift
from entprop_fast.lab.evaluation import attacks
from entprop_fast.options import check, option, options_of

CORRUPTION_CHOICES = ("auto", "official", "generated", "digits", "none")


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Say what to measure beside the accuracy on clean images; the fields describe themselves.

    ``corruptions="auto"`` takes digits for digits, else official ones where they are, or, where
    nobody publishes any, what `entprop_fast.corrupt` wrote as ``<data set>-c`` (unless `scale` is
    given); else it generates them.

    Raises:
        TypeError, ValueError: an unknown choice, or settings that do not fit together.
        ImportError: AutoAttack was asked for and is not installed.
    """

    norms: Literal["main", "aux"] = option(
        "main",
        "Norms that measure: main is what is deployed, aux those of a model with dual norms.",
        group="evaluation",
    )
    corruptions: str = option(
        "auto",
        "Corrupted images behind RA: the published files, the 15 kinds generated here, the ten "
        "kinds for digits, or none.",
        choices=CORRUPTION_CHOICES,
        group="evaluation",
    )
    scale: Scale | None = option(
        None,
        "Strengths of generated corruptions. Left out, the images' size decides.",
        group="evaluation",
    )
    extra: bool = option(
        False,
        "Measure the 4 extra kinds of corruption too, which are in no mean.",
        group="evaluation",
    )
    also: Sequence[str] = option((), "Further test sets.", choices=NATURAL, group="evaluation")
    shift: Sequence[str] = option(
        (),
        "Further labelled sets of the same classes, NAME=PATH: folder:, npz:, idx:, or the folder "
        "of CIFAR-10.1, CIFAR-10-C-bar, ImageNet-v2, -Sketch, -3DCC.",
        group="evaluation",
    )
    official_dir: str | Path | None = option(
        None, "Folder of CIFAR-10-C, imagenet-c, imagenet-a, ...", group="data"
    )
    cache_dir: str | Path | None = option(
        None, "Folder in which generated images are kept, to be used again.", group="data"
    )
    pgd: int = option(
        0, "Steps of a PGD attack on the clean images; 0 leaves it out.", low=0, group="evaluation"
    )
    eps: float = option(
        8 / 255,
        "Radius of the attacks, in the maximum norm.",
        low=0,
        open_low=True,
        high=1,
        unit="image units",
        group="evaluation",
    )
    alpha: float = option(
        2 / 255,
        "Step of PGD.",
        low=0,
        open_low=True,
        high=1,
        unit="image units",
        group="evaluation",
    )
    autoattack: bool = option(False, "Run AutoAttack, if it is installed.", group="evaluation")
    seed: int = option(0, "Seed of generated corruptions and attacks.", group="evaluation")

    def __post_init__(self) -> None:
        for name, about in options_of(EvaluationOptions).items():
            value = getattr(self, name)
            check(about, str(value) if isinstance(value, Path) else value)
        for one in self.shift:
            read_shift(one)
        if self.also and self.official_dir is None:
            raise ValueError(f"also={', '.join(self.also)}: expected official_dir, where they are")
        if self.autoattack:
            attacks.autoattack_class()  # before hours of work, not after

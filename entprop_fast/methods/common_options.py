"""Declare the options that every method takes, and the fields that several methods share."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from entprop_fast import reference
from entprop_fast.methods import image_units
from entprop_fast.methods.image_units import Channels
from entprop_fast.options import document, option, options_of, signature

IMAGE_UNITS = "image units"
FLOAT16 = (
    "float16 needs loss scaling, which synchronises every step, and an input gradient that "
    "underflows to 0 has sign 0 and perturbs nothing"
)

_ARGS = """

Args:
    model: the network, in training mode, or a `DistributedDataParallel` of it, over whose processes
        each step averages the gradients once (docs/distributed.md).
    optimizer: holds every trainable parameter of `model` (and of `criterion`).
"""

Field = Callable[..., Any]  # of a dataclass: takes its default
distance: Field = partial(option, low=0, unit=IMAGE_UNITS)
weight: Field = partial(option, low=0, open_low=True)
share: Field = partial(option, low=0, open_low=True, high=1)
mixup: Field = partial(
    option,
    help="MixUp's lam ~ Beta(mixup, mixup), one for each batch (1); 0 mixes nothing.",
    low=0,
)
cutmix: Field = partial(
    option,
    help="CutMix's lam ~ Beta(cutmix, cutmix), one for each batch (8); 0 mixes nothing.",
    low=0,
)
jsd: Field = partial(
    option,
    help="Weight of the Jensen-Shannon divergence of three views of each row (17), 12 in AugMix; a "
    "batch is then images [3 * B, C, H, W], the rows and two augmented views of each, with labels "
    "[B]. 0: one view.",
    low=0,
)
score: Field = partial(
    option, "entropy", "What ranks the rows; the highest are selected.", choices=reference.SCORES
)


def _amp(value: Any) -> Literal["bf16"] | None:
    """Return None or "bf16"; for float16 the error says why not."""
    if value in ("fp16", "float16", "half", torch.float16):
        raise ValueError(f"amp={value!r}: {FLOAT16}; use amp='bf16' or None")
    if value is None or value == "bf16":
        return "bf16" if value else None
    raise ValueError(f"amp={value!r}: expected 'bf16' or None")


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Hold the options that every method takes."""

    input_range: tuple[float, float] = option(
        (0.0, 1.0),
        "Lowest and highest value of an image before normalisation.",
        parse=image_units.input_range,
    )
    normalization: tuple[Channels, Channels] | None = option(
        None,
        "(mean, std), each a float or one per channel, when the images arrive as (x - mean) / std; "
        "eps and alpha stay in image units.",
        parse=image_units.normalization,
    )
    amp: Literal["bf16"] | None = option(
        None,
        '"bf16" runs forward passes under bfloat16 autocast; None leaves autocast alone.',
        parse=_amp,
    )
    generator: torch.Generator | None = option(
        None,
        "Source of every random draw of a step, on the images' device; None for that device's "
        "default one.",
    )
    capture: Literal["auto", "on", "off"] = option(
        "auto",
        'Replay the step as a CUDA graph: "auto" on CUDA where it can be captured, with one '
        'warning where it cannot; "on" or an error; "off" never.',
    )
    cudnn_benchmark: bool = option(
        True,
        "Let cuDNN time its convolutions for the first shapes that a capture warms up on, unless "
        "torch is set to be deterministic; torch's own switch is as it was after each call.",
    )
    check: Literal[True, False] | None = option(
        None,
        "Check labels and image values on every call; None on the CPU only, since on a GPU it "
        "synchronises. Shapes and dtypes are always checked.",
    )
    criterion: nn.Module | None = option(
        None, "A module (logits, labels) -> per-sample loss [B] in place of cross-entropy."
    )
    label_smoothing: float = option(0.0, "Label smoothing of the cross-entropy.", low=0, high=1)
    max_grad_norm: float | None = option(
        None,
        "Clip the norm of all gradients before the optimiser's step.",
        low=0,
        open_low=True,
    )
    ranks: Literal["independent", "exact"] = option(
        "independent",
        "Of several processes each keeps statistics, draws and selection to its own rows "
        '("independent"), or they compute together what one would on the whole batch ("exact"; '
        "docs/distributed.md).",
    )

    def __post_init__(self) -> None:
        """Check what no option can say alone."""
        width = self.input_range[1] - self.input_range[0]
        for name, about in options_of(type(self)).items():
            value = getattr(self, name)
            # Catches the paper's "alpha = 1", which is 1/255.
            if about.unit == IMAGE_UNITS and value is not None and value >= width:
                raise ValueError(
                    f"{name}={value!r}: expected image units, below {width:g}, the width of "
                    f"input_range; one grey level of 255 is {width / 255:.3g}"
                )
        if self.criterion is not None and self.label_smoothing:
            raise ValueError(
                f"label_smoothing={self.label_smoothing!r} belongs to the built-in cross-entropy: "
                "leave it 0 with a criterion"
            )


def describe(cls: type, record: type) -> None:
    """Write the options of `record` into the signature and the documentation of a method."""
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    leading = (
        inspect.Parameter("model", keyword, annotation=nn.Module),
        inspect.Parameter("optimizer", keyword, annotation=torch.optim.Optimizer),
    )
    cls.__signature__ = signature(record, *leading)  # type: ignore[attr-defined]
    cls.__doc__ = inspect.cleandoc(cls.__doc__ or "") + _ARGS + document(record)


def check_attack_loss(attack_loss: str, criterion: nn.Module | None) -> None:
    """Refuse an attack that would leave the criterion out.

    Raises:
        ValueError: `attack_loss` is not "ce" and there is a criterion.
    """
    if attack_loss != "ce" and criterion is not None:
        raise ValueError(
            f"attack_loss={attack_loss!r} reads logits of its own and leaves the criterion "
            "out: use attack_loss='ce', which attacks the criterion's loss, or no criterion"
        )


def check_score_used(k: float | None, score: str) -> None:
    """Refuse a score where nothing is selected.

    Raises:
        ValueError: `score` is given and `k` is None.
    """
    if k is None and score != "entropy":
        raise ValueError(f"score={score!r} with k=None, which selects nothing: set k, such as 0.2")


def check_unmixed_views(jsd: float, mixup: float | None, cutmix: float) -> None:
    """Refuse to mix rows whose views are held together.

    Raises:
        ValueError: `jsd` is more than 0, and one of the others, too.
    """
    for name, value in (("mixup", mixup), ("cutmix", cutmix)):
        if jsd and value:
            raise ValueError(
                f"{name}={value:g} with jsd={jsd:g}: three views of a row are compared, and a "
                f"mixed row is no view; use {name}=0 (of mixup, or leave it out), or jsd=0"
            )


def check_one_mixing(mixup: float, cutmix: float) -> None:
    """Refuse two ways to mix a batch.

    Raises:
        ValueError: both are more than 0.
    """
    if cutmix and mixup:
        raise ValueError(
            f"cutmix={cutmix:g} with mixup={mixup:g}: a batch is mixed one way; use mixup=0 with "
            "cutmix, or cutmix=0"
        )

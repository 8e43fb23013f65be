"""Choose the corrupted images that a network is scored on, for runs, comparisons and evaluate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from entprop_fast.lab.corruptions import official_sets, set_cache, suites
from entprop_fast.lab.corruptions.common import GENERATOR, Scale
from entprop_fast.lab.corruptions.suites import Suite
from entprop_fast.lab.data import ImageData, ImageFiles, ImageSet
from entprop_fast.lab.data.datasets import EMBEDDED
from entprop_fast.lab.data.image_files import SMALL
from entprop_fast.lab.evaluation.evaluation_options import EvaluationOptions

_BATCH, _LARGE_BATCH = 500, 100  # images of 224 pixels take 49 times the memory of CIFAR's


def usual_batch_size(data: ImageSet) -> int:
    """Return the images in a forward pass that measures, where nobody names another number."""
    return _BATCH if _is_small(data) and isinstance(data, ImageData) else _LARGE_BATCH


def usual_scale(data: ImageSet) -> Scale:
    """Return the published strengths that are meant for images of that size."""
    return "cifar-c" if _is_small(data) else "imagenet-c"


def choose_suite(
    data: ImageSet,
    options: EvaluationOptions,
    device: torch.device,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Suite | None:
    """Open the corrupted test images that `options` ask for; None where they ask for none.

    Opening an official set checks it, so that a broken one is found before anything is computed.
    """
    batch_size = usual_batch_size(data) if batch_size is None else batch_size
    choice, kind = options.corruptions, data.official_corruptions
    if choice == "auto" and data.name == EMBEDDED:
        choice = "digits"
    if choice in ("digits", "none"):
        _refuse_unused(choice, options)
    if choice == "none":
        return None
    if choice == "digits":
        return suites.digits_suite(data, batch_size, device, workers=workers)
    if choice in ("auto", "official"):
        folder = None if options.official_dir is None else Path(options.official_dir)
        root = official_sets.find(kind, folder) if kind else None
        if kind is None and choice == "auto" and options.scale is None:
            # What nobody publishes may have been written here, with strengths of its own.
            root = official_sets.find_written(data, folder)
            kind = "imagenet-c" if isinstance(data, ImageFiles) else "cifar10-c"  # the layout
        if root is not None and kind is not None:
            suite = official_sets.open_suite(
                kind, root, data, batch_size, extra=options.extra, workers=workers
            )
            if say is not None and suites.of_another_generator(suite.source):
                say(
                    f"{root} was written by another version's generator, whose images differ from "
                    f"this one's ({GENERATOR}): entprop_fast.corrupt --overwrite writes it again"
                )
            return suite
        _not_found(data, folder, must_be_there=choice == "official", say=say)
    scale = options.scale or usual_scale(data)
    if options.cache_dir is not None:
        return set_cache.cached_suite(
            data,
            scale,
            batch_size,
            device,
            Path(options.cache_dir),
            seed=options.seed,
            extra=options.extra,
            say=say,
        )
    return suites.generated_suite(
        data,
        scale,
        batch_size,
        device,
        seed=options.seed,
        extra=options.extra,
        workers=workers,
    )


def _is_small(data: ImageSet) -> bool:
    return max(data.image_shape[1:]) <= SMALL


def _refuse_unused(choice: str, options: EvaluationOptions) -> None:
    for name in ("scale", "extra", "cache_dir"):
        if value := getattr(options, name):
            raise ValueError(
                f"{name} = {value} is of the common corruptions, and corruptions = "
                f"{options.corruptions} takes {choice} here; generated takes the common ones"
            )


def _not_found(
    data: ImageSet,
    folder: Path | None,
    *,
    must_be_there: bool,
    say: Callable[[str], None] | None,
) -> None:
    if data.official_corruptions is None:
        if must_be_there:
            raise ValueError(f"corruptions = official: there is no such set of {data.name}")
        return
    title, usual = official_sets.OFFICIAL[data.official_corruptions]
    where = folder or "no folder (official_dir is not set)"
    missing = f"{title} was looked for as {', '.join(usual)} in {where} and is not there"
    if must_be_there:
        raise FileNotFoundError(missing)
    if say is not None:
        say(f"{missing}: its corruptions are generated")

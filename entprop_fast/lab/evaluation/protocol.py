"""Measure any network by the paper's protocol, and beside it what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from entprop_fast.lab.corruptions.suites import Suite
from entprop_fast.lab.data import ImageData, ImageFiles, ImageSet
from entprop_fast.lab.data.readers import processes
from entprop_fast.lab.evaluation.choose_suite import usual_batch_size
from entprop_fast.lab.evaluation.evaluation_options import EvaluationOptions
from entprop_fast.lab.evaluation.evaluation_result import Evaluation
from entprop_fast.lab.evaluation.evaluator import Evaluator
from entprop_fast.lab.evaluation.given_images import images_of
from entprop_fast.lab.evaluation.saved_counts import SavedCounts
from entprop_fast.lab.evaluation.scored_network import Normalization, Scored, refusal
from entprop_fast.lab.report.observer import Measured
from entprop_fast.layers.routing import dual_layers


def evaluate_model(
    model: nn.Module,
    data: ImageSet | DataLoader[Any] | Dataset[Any] | tuple[Tensor, Tensor],
    options: EvaluationOptions | None = None,
    *,
    name: str = "model",
    normalization: Normalization | None = None,
    input_range: tuple[float, float] = (0.0, 1.0),
    batch_size: int | None = None,
    workers: int | None = None,
    say: Callable[[str], None] | None = None,
    kept: SavedCounts | None = None,
    progress: Callable[[Measured], None] | None = None,
    suite: Suite | None = None,
) -> Evaluation:
    """Measure SA, RA, Hscore and more of any network, the metrics of the paper's tables.

    The model stays where it is, in eval mode while it runs; its flags, gradients and routing come
    back as they were.

    Args:
        model: from images to logits ``[B, classes]`` (or an object that has them as ``.logits``),
            of any floating dtype, on the device to evaluate on.
        data: a ``DataLoader`` of (images, labels), a ``Dataset`` of (image ``[C, H, W]``, label),
            (images ``[N, C, H, W]``, labels ``[N]``), or of `entprop_fast.data.load`. Images are
            uint8, or floating in `input_range`; items may be dictionaries, as `entprop_fast.fit`
            takes them. A loader or a data set is read once to look at all
            of it, and again in each pass that measures; its images are never in memory together. A
            loader that shuffles keeps the first order it draws, because intervals pair each
            image's answers.
        options: what to measure; None: SA and RA through the main norms.
        name: of the network, in tables.
        normalization: (mean, std) per channel, in the units of `input_range`, that images go
            through here, on their way from the corruptions to the network; None: it takes them as
            they are. `data` comes before it (`entprop_fast.fit` takes images that have been
            through it).
        input_range: lowest and highest value of floating images, and of what the network takes
            before `normalization`. Corruptions and attacks work in [0, 1], as do ``eps`` and
            ``alpha``.
        batch_size: images in a forward pass; None: 500, or 100 above 64 pixels and from files; a
            ``DataLoader`` has its own.
        workers: processes that read images; 0: this one; None: for image files one a core, at most
            8, for a ``Dataset`` this one.
        say: told what is being measured.
        kept: where the commands keep what is counted, so that a killed one goes on.
        progress: told how far that is, after every batch.
        suite: corrupted images that `choose_suite` opened before, for these options and batches.

    Returns:
        Everything, in percent; ``markdown()`` and ``as_dict()`` write it down.

    Raises:
        TypeError: `data` is none of these (NumPy arrays, say), or the network returns neither a
            tensor nor an object with ``.logits``.
        ValueError: no images, images that do not fit the network, values that are not finite or
            outside of `input_range`, a batch size below 1, fewer logits than classes, logits that
            are NaN, or a set that is not what it should be.
        FileNotFoundError: a set that was asked for is not there.
    """
    low, high = (float(one) for one in input_range)
    if not (-math.inf < low < high < math.inf):
        raise ValueError(f"input_range = {input_range} must be a lower and a higher number")
    if kept is not None and not isinstance(data, ImageData | ImageFiles):
        raise ValueError("kept goes with a data set of entprop_fast.data.load")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size = {batch_size} must be at least 1")
    processes(workers)  # a number that cannot be is refused here, before anything is read
    options = options or EvaluationOptions()
    if options.norms == "aux":
        dual_layers(model)
    images = images_of(data, (low, high), batch_size=batch_size, workers=workers)
    evaluator = Evaluator(
        Scored(model, normalization, (low, high)),
        images,
        options,
        usual_batch_size(images) if batch_size is None else batch_size,
        workers,
        say or _silent,
        kept,
        progress or _silent,
        suite,
    )
    try:
        return evaluator.run(name)
    except RuntimeError as error:
        if (reason := refusal(evaluator.model, images.image_shape)) is None:
            raise
        raise ValueError(
            f"data: images {list(images.image_shape)} do not fit the model: {reason}"
        ) from error


def _silent(what: object) -> None:
    return None

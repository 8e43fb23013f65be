"""The paper's protocol, and what is measured beside it, on any network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from entprop_fast.data import ImageData, ImageFiles, ImageSet
from entprop_fast.data.augment import Normalize
from entprop_fast.evaluation.evaluator import Evaluator
from entprop_fast.evaluation.options import EvaluationOptions
from entprop_fast.evaluation.progress import Measured
from entprop_fast.evaluation.results import Evaluation


def evaluate_model(
    model: nn.Module,
    data: ImageSet | tuple[Tensor, Tensor],
    options: EvaluationOptions | None = None,
    *,
    name: str = "model",
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    batch_size: int | None = None,
    workers: int | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[Measured], None] | None = None,
) -> Evaluation:
    """SA, RA, Hscore and more of any network: the metrics of the paper's tables, with intervals.

    The model stays where it is, in eval mode while it runs; its flags, gradients and routing come
    back as they were.

    Args:
        model: from images to logits ``[B, classes]``, on the device to evaluate on.
        data: of `entprop_fast.data.load`, or images ``[N, C, H, W]`` (uint8, or floating in
            [0, 1]) and labels int64 ``[N]``.
        options: what to measure; None: SA and RA through the main norms.
        name: of the network, in tables.
        normalization: (mean, std) per channel that the network's inputs went through; None: it
            takes images in [0, 1].
        batch_size: images in a forward pass; None: 500, or 100 above 64 pixels
            and from files.
        workers: processes that read image files; 0: this one; None: one a core, at most 8.
        say: told what is being measured.
        progress: told how far that is, after every batch.

    Returns:
        Everything, in percent; ``markdown()`` and ``as_dict()`` write it down.

    Raises:
        TypeError: `data` is none of these (a torch data set, a loader, NumPy arrays).
        ValueError: no images, a batch size below 1, fewer logits than classes, or a set that is
            not what it should be.
        FileNotFoundError: a set that was asked for is not there.
    """
    images = _as_image_set(data)
    network = model if normalization is None else _Normalized(model, normalization)
    evaluator = Evaluator(
        network,
        images,
        options or EvaluationOptions(),
        batch_size=batch_size,
        workers=workers,
        say=say,
        progress=progress,
    )
    return evaluator.run(name)


class _Normalized(nn.Module):
    """A network whose inputs are normalised, as one that takes images in [0, 1]."""

    def __init__(
        self, model: nn.Module, normalization: tuple[Sequence[float], Sequence[float]]
    ) -> None:
        super().__init__()
        self.model = model
        parameter = next(model.parameters(), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        self._normalize = Normalize(*normalization, device)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(self._normalize(images))
        return logits


def _as_image_set(data: object) -> ImageSet:
    if isinstance(data, ImageData | ImageFiles):
        return data
    match data:
        case (Tensor() as images, Tensor() as labels):
            return _of_tensors(images, labels)
    inside = f" of {', '.join(type(one).__name__ for one in data)}" if type(data) is tuple else ""
    raise TypeError(
        f"data is a {type(data).__name__}{inside}: two tensors, (images [N, C, H, W], labels [N]), "
        "or what entprop_fast.data.load gives wanted"
    )


def _of_tensors(images: Tensor, labels: Tensor) -> ImageData:
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images have shape {tuple(images.shape)}; [N, C, H, W] wanted")
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    if labels.dtype != torch.int64 or labels.ndim != 1 or labels.min() < 0:
        given = f"{labels.dtype} {tuple(labels.shape)}, the lowest {labels.min().item():g}"
        raise ValueError(f"labels are {given}; int64 [N] of 0 or more wanted")
    classes = int(labels.max()) + 1
    images, labels = images.cpu(), labels.cpu()
    return ImageData("images", images[:0], labels[:0], images, labels, classes)

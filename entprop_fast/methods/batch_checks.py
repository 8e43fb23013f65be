"""Refuse batches that a method cannot use, and outputs that it cannot learn from."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from entprop_fast.logits import logits_of
from entprop_fast.methods.common_options import FLOAT16
from entprop_fast.methods.image_units import ImageUnits

RANGE_TOLERANCE = 1e-5  # image units: rounding of a normalisation, not a wrong range


def image_gradient(gradient: Tensor | None) -> Tensor:
    """Give the gradient of the images, which an attack moves them along.

    Raises:
        ValueError: there is none.
    """
    if gradient is None:
        raise ValueError(
            "model: the loss gives the images no gradient (a no_grad or a detach within?), so that "
            "nothing can be perturbed: let it through, or use vanilla, mixup or mixprop"
        )
    return gradient


def check_weight(weight: object) -> None:
    """Check that `weight` can weigh the gradients of a batch.

    Raises:
        TypeError: it is no number.
        ValueError: it is not above 0, or not finite.
    """
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise TypeError(f"weight is a {type(weight).__name__}: expected a number above 0")
    if not 0 < weight < math.inf:
        raise ValueError(f"weight={weight!r}: expected a number above 0, as 1/4 for 4 batches")


def check_gradients() -> None:
    """Check that gradients are recorded.

    Raises:
        ValueError: `torch.no_grad` or `torch.inference_mode` holds.
    """
    if not torch.is_grad_enabled():
        raise ValueError(
            "called under torch.no_grad() or torch.inference_mode(), where nothing can be learned: "
            "call the method outside of it"
        )


def check_generator(generator: torch.Generator | None, device: torch.device | None) -> None:
    """Check that `generator` belongs to the device of the images.

    Raises:
        ValueError: it belongs to another.
    """
    if generator is not None and device is not None and generator.device.type != device.type:
        raise ValueError(
            f"generator is on {generator.device}, the images are on {device}: make it with "
            f"torch.Generator(device={device.type!r})"
        )


def check_batch(
    images: Tensor,
    labels: Tensor,
    model: nn.Module,
    units: ImageUnits,
    autocast: bool,
    empty: bool,
    views: int = 1,
) -> None:
    """Check shapes, dtypes and devices of a batch; nothing here reads a value.

    Args:
        images: expected to be [views * B, C, H, W].
        labels: expected to be [B].
        model: takes them.
        units: of the images.
        autocast: the model's dtype may be another.
        empty: B may be 0, where other processes have rows.
        views: of each row.

    Raises:
        TypeError: not tensors.
        ValueError: one of them does not fit.
    """
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    if images.ndim != 4 or 0 in images.shape[1 if empty else 0 :]:
        raise ValueError(f"images of shape {tuple(images.shape)}: expected [B, C, H, W], not empty")
    if not images.is_floating_point():
        raise ValueError(f"images of dtype {images.dtype}: expected floating-point images")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is not None:
        if images.device != parameter.device:
            raise ValueError(f"images are on {images.device}, the model is on {parameter.device}")
        kind = images.device.type
        if not autocast and torch.is_autocast_enabled(kind):
            if torch.get_autocast_dtype(kind) == torch.float16:
                raise ValueError(f"autocast to float16 around the call: {FLOAT16}; use bfloat16")
            autocast = True
        if images.dtype != parameter.dtype and not autocast:
            raise ValueError(
                f"images of dtype {images.dtype}: expected the model's, {parameter.dtype}"
            )
    if units.channels not in (1, images.shape[1]):
        raise ValueError(
            f"normalization has {units.channels} channels, the images have {images.shape[1]}"
        )
    if views > 1 and len(images) % views:
        raise ValueError(
            f"images of shape {tuple(images.shape)}: expected [{views} * B, C, H, W], {views} "
            "views of each row: the rows, then the second view of each, then the third"
        )
    rows = len(images) // views
    if labels.dtype != torch.int64 or labels.shape != (rows,):
        way_out = "" if views == 1 else f", one for the {views} views of a row"
        if labels.ndim == 2 and labels.shape[1] > 1:  # as timm's Mixup and torchvision's give
            way_out = (
                "; not soft ones: let the method mix (its mixup= or cutmix=, label_smoothing=) in "
                "place of the loader, and give one-hot labels as labels.argmax(1)"
            )
        raise ValueError(
            f"labels of dtype {labels.dtype} and shape {tuple(labels.shape)}: expected int64, "
            f"({rows},){way_out}"
        )
    if labels.device != images.device:
        raise ValueError(f"labels are on {labels.device}, the images on {images.device}")


def check_values(images: Tensor, units: ImageUnits) -> None:
    """Check that every image value is within the input range; reading them synchronises a GPU.

    Raises:
        ValueError: some are outside, or NaN.
    """
    if not len(images):
        return
    low, high = units.input_range
    smallest = units.to_image_units(images.detach().amin(dim=(0, 2, 3))).min().item()
    largest = units.to_image_units(images.detach().amax(dim=(0, 2, 3))).max().item()
    if not (low - RANGE_TOLERANCE <= smallest and largest <= high + RANGE_TOLERANCE):
        way_out = "pass normalization=(mean, std) if normalised"
        if units.normalization is not None:
            way_out = (
                "normalization is given; what is drawn or erased after it, as by pixel "
                "RandomErasing, leaves the range: erase before normalising (mode 'const'), clamp "
                "the images, or pass check=False"
            )
        raise ValueError(
            f"images hold values in [{smallest:g}, {largest:g}], in image units: expected them in "
            f"input_range=({low:g}, {high:g}); {way_out}"
        )


def check_labels(labels: Tensor, classes: int | None) -> None:
    """Check that every label is in [0, classes); reading them synchronises a GPU.

    Raises:
        ValueError: some are outside.
    """
    if not len(labels):
        return
    smallest, largest = (int(bound) for bound in labels.aminmax())
    if smallest < 0 or (classes is not None and largest >= classes):
        wrong = smallest if smallest < 0 else largest
        valid = "of 0 or more" if classes is None else f"in [0, {classes}), the model's classes"
        raise ValueError(f"labels hold {wrong}: expected labels {valid}")


def check_logits(output: object, batch: int) -> Tensor:
    """Return the logits [batch, classes] of what a model returned, as it is or as `.logits`.

    Raises:
        ValueError: the model returned something else, or auxiliary classifiers beside them.
    """
    if not isinstance(output, Tensor):
        for name, value in _fields(output):
            if name.startswith("aux") and value is not None:
                raise ValueError(
                    f"model returned a {type(output).__name__} with {name}, which no method learns "
                    "from: switch the auxiliary classifiers off (torchvision: model.aux_logits = "
                    "False), or wrap the model in a module that returns the logits"
                )
    logits = logits_of(output, batch)
    if not logits.requires_grad:
        raise ValueError(
            "model returned logits that no gradient leads to: expected a trainable parameter, and "
            "no torch.no_grad() or .detach() between it and them"
        )
    return logits


def _fields(output: object) -> list[tuple[str, object]]:
    """Return the named values of a model's output: a mapping's, a named tuple's, or attributes."""
    if isinstance(output, Mapping):
        return [(str(name), value) for name, value in output.items()]
    if isinstance(output, tuple):
        return list(zip(getattr(output, "_fields", ()), output, strict=False))
    return list(getattr(output, "__dict__", {}).items())

"""Make a run's parts of a caller's own network and images, for `entprop_fast.fit`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from entprop_fast.eval_mode import evaluating
from entprop_fast.lab.data import ImageData, ImageSet
from entprop_fast.lab.data.loader import Batch, Loader
from entprop_fast.lab.data.readers import own_generators
from entprop_fast.lab.evaluation.choose_suite import usual_batch_size
from entprop_fast.lab.evaluation.given_images import images_of
from entprop_fast.lab.evaluation.scored_network import (
    Normalization,
    Scored,
    needs_rows,
    refusal,
)
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import criteria
from entprop_fast.lab.training.augment_setting import read_augment
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.deploy import NetworkSpec
from entprop_fast.lab.training.device import resolve_device
from entprop_fast.lab.training.errors import fitting
from entprop_fast.lab.training.given_check import GivenCheck
from entprop_fast.lab.training.given_data import (
    Given,
    GivenImages,
    classes_within,
    loader_of,
)
from entprop_fast.lab.training.parts import Parts, assemble, seed_everything
from entprop_fast.lab.training.run_identity import given_identity
from entprop_fast.lab.training.run_images import TestSet
from entprop_fast.layers import convert_dual_norm
from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.logits import logits_of
from entprop_fast.methods import needs_dual_norms
from entprop_fast.methods.image_units import ImageUnits

_CORRUPTED = (1, 3)  # channels of images that corruptions are made of


def given_parts(
    config: Config,
    reporter: Reporter,
    fresh: bool,
    *,
    model: nn.Module,
    train: Given,
    validation: Given | None,
    input_range: tuple[float, float],
    normalization: Normalization | None,
    objects: Mapping[str, Any],
) -> Parts:
    """Make the parts; the model is moved to the device and converted, in place.

    Args:
        config: the settings.
        reporter: hears what takes long.
        fresh: the run begins; the model's weights are where it starts either way.
        model: the network.
        train: training images.
        validation: test images, or None.
        input_range: lowest and highest value of floating images.
        normalization: (mean, std) of each channel that floating images went through.
        objects: the method's options that no text can say, such as a criterion.

    Raises:
        ValueError, TypeError: network, images and settings do not fit together.
    """
    device = resolve_device(config.device)
    seed_everything(config.seed)
    model.to(device)
    units = ImageUnits(input_range, normalization)
    augment = read_augment(config.augment)
    # What a loader gives on the CPU is looked at by the method, unless something is between them.
    by_method = device.type == "cpu" and isinstance(train, DataLoader) and not augment.chain.parts
    values = objects.get("check") is not False and not by_method
    check = GivenCheck(units, values=values, augment=augment)
    loader = loader_of(
        train,
        check,
        seed=config.seed,
        batch_size=config.batch_size,
        drop_last=config.drop_last,
        augment=augment.chain,
        kind=config.loader,
        workers=config.workers or 0,
        device=device,
        dtype=_dtype(model),
        normalization=normalization,
    )
    first = next(iter(loader.first_batches(1, 1)))
    image = first[0]
    shape = (image.shape[1], image.shape[2], image.shape[3])
    with fitting(config.arch, shape, config.dataset):
        check.classes, loader.memory_format = _look(model, image)
    if config.corruptions == "auto" and shape[0] not in _CORRUPTED:
        reporter.say(f"images have {shape[0]} channels, of which no corruption is made: no RA")
        config = replace(config, corruptions="none")
    if isinstance(train, tuple):
        check(*train)  # again, now that the classes are known
    with reporter.waiting("looking at the validation images"):
        test = _test_of(validation, units, check.classes)
    _check_test_shape(model, test, shape)
    names = _class_names(train, check.classes)
    images = GivenImages(config.dataset, loader, shape, check.classes, test, names).as_image_set()
    spec = NetworkSpec(
        arch=config.arch,
        num_classes=check.classes,
        in_channels=shape[0],
        stem="imagenet",
        dataset=config.dataset,
        seed=config.seed,
        class_names=names,
        input_size=shape[1:],
        **_normalised(normalization, input_range, shape[0]),
    )
    options = {**config.options, **objects, "normalization": normalization}
    criterion = options.get("criterion")
    if isinstance(criterion, nn.Module):
        options["criterion"] = criterion.to(device)
    else:
        options = criteria.keywords(options, check.classes, device)
    if needs_dual_norms(config.method, options) and not is_dual(model):
        convert_dual_norm(model)
    if not model.training:  # otherwise flags within are the caller's: frozen norms stay so
        model.train()
    tested = GivenTest(test, loader, model, normalization, input_range)
    again = None if fresh else next(iter(loader.first_batches(1, 1)))
    told = given_identity(first, again, normalization, input_range, criterion)
    return assemble(config, images, spec, model, loader, tested, options, identity=told)


def _class_names(train: Given, count: int) -> tuple[str, ...]:
    """Return the names that a data set has of its classes, if it has one for each logit."""
    names = classes_within(train)
    return names if len(names) == count else ()


def is_dual(model: nn.Module) -> bool:
    """Return whether a norm of the model has an auxiliary half."""
    return any(isinstance(module, DualNorm) for module in model.modules())


class GivenTest(TestSet):
    """Give test images to the network as the training images come: range, normalisation, dtype.

    Args:
        data: the test images, in [0, 1]; None: there are none.
        loader: of the training images.
        model: the network.
        normalization: (mean, std) that its images go through.
        input_range: that they are in before.
    """

    def __init__(
        self,
        data: ImageSet | None,
        loader: Loader,
        model: nn.Module,
        normalization: Normalization | None,
        input_range: tuple[float, float],
    ) -> None:
        held = data if data is not None else _nothing()
        super().__init__(held, loader.device, batch_size=usual_batch_size(held), workers=None)
        self.loader, self.scored = loader, Scored(model, normalization, input_range)
        self.normalization, self.input_range = normalization, input_range

    def batches(self, own: slice = slice(None)) -> Iterator[Batch]:
        """Yield all of them in order, as the network takes them, and labels.

        What a loader draws is no draw of the run's: being measured does not change it.
        """
        source = super().batches(own)
        while True:
            with own_generators():
                batch = next(source, None)
            if batch is None:
                return
            images, labels = batch
            made = self.scored.as_given(images)
            yield made.contiguous(memory_format=self.loader.memory_format), labels


def _nothing() -> ImageSet:
    """Return a data set without an image."""
    images, labels = torch.empty(0, 1, 1, 1), torch.empty(0, dtype=torch.int64)
    return ImageData("nothing", images, labels, images, labels, 1)


def _test_of(validation: Given | None, units: ImageUnits, classes: int) -> ImageSet | None:
    if validation is None:
        return None
    try:
        normalized = None if units.normalization is None else units
        with own_generators():
            test = images_of(validation, units.input_range, normalized=normalized)
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"validation: {error}") from error
    if test.num_classes > classes:
        raise ValueError(
            f"validation: labels reach {test.num_classes - 1}, and model has {classes} classes"
        )
    return test


def _check_test_shape(model: nn.Module, test: ImageSet | None, shape: tuple[int, int, int]) -> None:
    """Refuse test images of another shape that the network does not take.

    Raises:
        ValueError: they are.
    """
    if test is None or test.image_shape == shape:
        return
    reason = refusal(model, test.image_shape)
    if reason is not None or test.image_shape[0] != shape[0]:
        raise ValueError(
            f"validation: images have shape {list(test.image_shape)}, those of train {list(shape)}"
            f"{'' if reason is None else f', and the model does not take them: {reason}'}"
        )


def _look(model: nn.Module, image: Tensor) -> tuple[int, torch.memory_format]:
    """Return the network's classes, and the layout in memory that it takes.

    channels_last is the faster one on most devices; a network that views its activations as rows
    (``x.view(len(x), -1)``) does not take it. The parameters get the layout, too.
    """
    with evaluating(model), torch.no_grad():
        if all(parameter.ndim <= 4 for parameter in model.parameters()):
            layouts = torch.channels_last, torch.contiguous_format
        else:
            layouts = torch.contiguous_format, torch.contiguous_format
        for layout in layouts:
            model.to(memory_format=layout)  # type: ignore[call-overload]
            try:
                logits = logits_of(model(image.contiguous(memory_format=layout).clone()), 1)
            except RuntimeError as error:
                if layout == layouts[1] or not needs_rows(error):
                    raise
                continue
            break
    return logits.shape[1], layout


def _dtype(model: nn.Module) -> torch.dtype:
    held = (one.dtype for one in (*model.parameters(), *model.buffers()) if one.is_floating_point())
    return next(held, torch.float32)


def _normalised(
    normalization: Normalization | None, input_range: tuple[float, float], channels: int
) -> dict[str, Any]:
    """Write what images in [0, 1] go through before the network: ``(x - mean) / std``."""
    if normalization is None and input_range == (0.0, 1.0):
        return {}
    mean, std = normalization or ((0.0,), (1.0,))
    each = channels if len(mean) == 1 else 1
    low, width = input_range[0], input_range[1] - input_range[0]
    return {
        "mean": tuple((one - low) / width for one in mean) * each,
        "std": tuple(one / width for one in std) * each,
    }

"""Put together what a run is made of: network, images, optimizer, learning rate and method."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from entprop_fast.counter_random import fold
from entprop_fast.lab import in_step, job
from entprop_fast.lab.data import ImageSet, Loader
from entprop_fast.lab.data.held_out import hold_out
from entprop_fast.lab.evaluation.choose_suite import usual_batch_size
from entprop_fast.lab.training import criteria, ranks
from entprop_fast.lab.training.accumulation import Accumulation, optimizer_steps
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.deploy import NetworkSpec, network_for
from entprop_fast.lab.training.device import resolve_amp, resolve_device
from entprop_fast.lab.training.ema import AveragedWeights
from entprop_fast.lab.training.given_data import GivenImages
from entprop_fast.lab.training.optim import (
    Learned,
    LearningRate,
    create_optimizer,
    learning_rate,
)
from entprop_fast.lab.training.own_names import MODEL
from entprop_fast.lab.training.parameter_groups import parameter_groups
from entprop_fast.lab.training.run_identity import Identity, identity_of
from entprop_fast.lab.training.run_images import TestSet, training_loader
from entprop_fast.lab.training.user_code import own_network
from entprop_fast.lab.training.validation import Validation
from entprop_fast.layers.conversion import NoNorms
from entprop_fast.methods import Method, create_method

_METHOD_STREAM = 2**31  # keeps the method's draws apart from those of the initial weights


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Hold what a `Trainer` works with, whoever made it: a command's settings or a caller.

    Attributes:
        config: the settings.
        device: where the run computes.
        images: the data set, for its names, numbers and test images.
        spec: says how the network is built again.
        model: the network, on the device and in training mode, dual where the method needs it.
        loader: the training batches.
        test: the test images; of none, no SA is measured.
        method_options: those that the method was made with.
        optimizer: of all parameters.
        learning_rate: of each step.
        method: the training step.
        accumulation: groups batches to optimiser steps.
        average: of the weights, or None.
        validation: images that were held out of the training images, or None.
        identity: what the run is continued with, and nothing else.
    """

    config: Config
    device: torch.device
    images: ImageSet
    spec: NetworkSpec
    model: nn.Module
    loader: Loader
    test: TestSet
    method_options: dict[str, Any]
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    method: Method
    accumulation: Accumulation
    average: AveragedWeights | None
    validation: Validation | None
    identity: Identity


def parts_of(
    config: Config, images: ImageSet, say: Callable[[str], None], *, fresh: bool = True
) -> Parts:
    """Make the parts that a run's settings name.

    Args:
        config: the settings.
        images: the data set.
        say: is told what the reader of a log should know of them.
        fresh: start from the weights that `config` names; a run that is continued brings its own.

    Raises:
        ValueError, TypeError: settings, network and data do not fit together.
    """
    device = resolve_device(config.device)
    seed_everything(config.seed)
    validation = None
    if config.validation:
        if isinstance(images, GivenImages):
            raise ValueError(
                f"validation={config.validation:g}: holds images out of tensors and files, and "
                f"{images.name!r} is a Dataset"
            )
        images, held = hold_out(images, config.validation, config.seed)
        validation = Validation(held, device, workers=config.workers)
    spec = network_for(
        config.arch,
        images,
        config.seed,
        normalize=config.normalize,
        test_size=config.test_size,
    )
    with contextlib.nullcontext() if config.weights is None else in_step.main_first():
        model = _network(config, spec, say, fresh=fresh)
    _check_dtype(model, config.arch)
    model = model.to(device).train()
    loader = training_loader(config, images, device, say)
    tested = images.test if isinstance(images, GivenImages) else images
    batch_size = usual_batch_size(tested)
    test = TestSet(tested, device, batch_size=batch_size, workers=config.workers)
    options = criteria.keywords(config.options, spec.num_classes, device)
    return assemble(config, images, spec, model, loader, test, options, validation)


def _network(
    config: Config, spec: NetworkSpec, say: Callable[[str], None], *, fresh: bool
) -> nn.Module:
    """Build the network; where it lacks norms, name the flags that matter."""
    try:
        return spec.build_for(
            config.method,
            config.options,
            model=own_network(config.arch, config.imports),
            weights=config.weights if fresh else None,
            say=say,
        )
    except NoNorms as error:
        own = config.arch.startswith(MODEL)
        flag = f"--model {config.arch.removeprefix(MODEL)}" if own else f"--arch {config.arch}"
        raise ValueError(
            f"{flag}: {error}; --method vanilla or --method mixup trains a network without norms"
        ) from error


def _check_dtype(model: nn.Module, arch: str) -> None:
    """Refuse a network of one's own that does not take the images of a command.

    Raises:
        ValueError: its parameters are of another dtype than float32.
    """
    for name, one in model.named_parameters():
        if one.is_floating_point() and one.dtype != torch.float32:
            raise ValueError(
                f"arch {arch!r}: {name} is {one.dtype}, and commands train float32 networks: make "
                "it so (--amp bf16 computes in bfloat16), or use entprop_fast.fit"
            )


def seed_everything(seed: int) -> None:
    """Seed the global generators: the initial weights' draws, and those within a network."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def assemble(
    config: Config,
    images: ImageSet,
    spec: NetworkSpec,
    model: nn.Module,
    loader: Loader,
    test: TestSet,
    method_options: dict[str, Any],
    validation: Validation | None = None,
    identity: Identity | None = None,
) -> Parts:
    """Add optimizer, learning rate and method to a network and its images; see `Parts`.

    What `identity` has is added to that of the network and its loader.

    Raises:
        ValueError, TypeError: settings that do not fit the network.
    """
    device = loader.device
    ranks.check_batches(config, loader)
    ranks.synchronised(model, config)
    optimizer = create_optimizer(
        config.optimizer,
        _learned(config, model, method_options["criterion"]),
        lr=config.lr,
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        nesterov=config.nesterov,
    )
    steps = optimizer_steps(len(loader), config.accumulate_batches)
    rate = learning_rate(
        config.schedule,
        peak=config.lr,
        steps=config.epochs * steps,
        steps_per_epoch=steps,
        warmup=config.warmup,
        warmup_epochs=config.warmup_epochs,
        decay_every=config.decay_every,
    )
    trained = ranks.replicated(model, config)
    method = create_method(
        config.method,
        trained,
        optimizer,
        amp=resolve_amp(config.amp, device),
        capture=config.capture,
        generator=torch.Generator(device).manual_seed(
            ranks.seed_of(config.seed + _METHOD_STREAM, config)
        ),
        **method_options,
    )
    ranks.check_mixing(config, loader, method)
    loader.augmented.views = method.views
    if (rank := job.current().rank) > 0:  # the weights were built alike; dropout is each one's own
        seed_everything(fold((config.seed, rank)) % 2**32)
    return Parts(
        config=config,
        device=device,
        images=images,
        spec=spec,
        model=model,
        loader=loader,
        test=test,
        method_options=method_options,
        optimizer=optimizer,
        learning_rate=rate,
        method=method,
        accumulation=Accumulation(method, trained, config.accumulate_batches, len(loader)),
        average=None if config.ema is None else AveragedWeights(model, config.ema),
        validation=validation,
        identity=identity_of(model, loader) | (identity or {}),
    )


def _learned(config: Config, model: nn.Module, criterion: nn.Module | None) -> Learned:
    """Return what the optimizer holds: one group as torch makes it, unless the settings differ."""
    if config.norm_decay and config.layer_decay is None:
        return criteria.learned(model, criterion)
    return parameter_groups(
        model,
        () if criterion is None else criterion.parameters(),
        weight_decay=config.weight_decay,
        norm_decay=config.norm_decay,
        layer_decay=config.layer_decay,
    )

"""Train a caller's own network on a caller's own images: `entprop_fast.fit`."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler

from entprop_fast.lab import checkpoint, in_step, job
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.stopping import OutOfTime
from entprop_fast.lab.training.augment_setting import moved_options, of_tensors
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.device import resolve_device
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.errors import UsageError
from entprop_fast.lab.training.finish import Summary
from entprop_fast.lab.training.fit_settings import (
    USUAL_LR,
    default_batch_size,
    name_of_data,
    per_channel,
    settings_of_loader,
    sorted_keywords,
)
from entprop_fast.lab.training.given_data import Given, check_given
from entprop_fast.lab.training.given_parts import given_parts, is_dual
from entprop_fast.lab.training.loggers import log_option
from entprop_fast.lab.training.own_names import DATA, MODEL
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.layers import strip_auxiliary
from entprop_fast.methods import image_units
from entprop_fast.methods.model_checks import check_kind

__all__ = ["fit"]


def fit(
    model: nn.Module,
    train: Given,
    validation: Given | None = None,
    *,
    method: str = "entprop",
    epochs: int,
    batch_size: int | None = None,
    optimizer: str = "sgd",
    lr: float | None = None,
    weight_decay: float = 5e-4,
    schedule: str = "onecycle",
    augment: str = "none",
    normalization: tuple[Any, Any] | None = None,
    device: str = "auto",
    amp: Literal["auto", "none", "bf16"] = "auto",
    out: str | Path | None = None,
    resume: bool = False,
    log: str | Sequence[str] = ("csv",),
    seed: int = 0,
    strip: bool = True,
    verbose: bool = True,
    **method_options: Any,
) -> Summary:
    """Train any network on images of yours, in place, with the trainer of the commands.

    Example::

        loader = DataLoader(dataset, batch_size=128, shuffle=True, num_workers=4)
        summary = entprop_fast.fit(model, loader, validation, epochs=30, lr=0.05, k=0.2)
        print(summary.sa, summary.ra, summary.hscore)

    The model is moved to the device and put into training mode; where the method needs dual norms
    and it has none, it is converted. Norms and other modules of it that are in eval mode while it
    is in training mode stay frozen. Afterwards its mode is what it was before. Its parameters get
    the memory layout ``channels_last``, unless it views activations as rows.

    Args:
        model: from images ``[B, C, H, W]`` to logits ``[B, classes]``, or an object with
            ``.logits``; of a floating dtype, which images are converted to.
        train: a ``DataLoader``, a ``Dataset`` with a length, or ``(images, labels)``. Items are
            pairs, or dictionaries with ``pixel_values``, ``image``, ``images`` or ``img``, and
            ``labels`` or ``label``. Images are uint8, or floating in ``input_range`` (a method
            option, (0, 1)); labels are integers. A `DataLoader` is used as it is: its order, its
            ``batch_size``, its workers. Its generator and samplers are seeded by ``(seed, epoch)``
            at the begin of every epoch, and ``set_epoch`` is called where there is one. In a
            process group each process trains on the batches of its own `DataLoader`, and on its
            part of each batch of a `Dataset` or of tensors.
        validation: test images, as `train`; SA is measured on them after every epoch, and RA and
            Hscore at the end. None: nothing is.
        method: one of `entprop_fast.methods.METHODS`.
        epochs: passes over the training images.
        batch_size: images in a step; None: 128, or all if there are fewer. A `DataLoader` has its
            own.
        optimizer: ``sgd`` (momentum 0.9), ``adam`` or ``adamw``.
        lr: highest learning rate; None: 0.1 for sgd, 0.001 for adam and adamw.
        weight_decay: of every parameter.
        schedule: ``onecycle``, ``cosine``, ``step`` or ``constant``.
        augment: ``none``, or a chain such as ``crop-flip+augmix``, of uint8 images or of floating
            ones in [0, 1] that are not normalised; see docs/augmentations.md. It comes after what a
            `DataLoader` does itself, and an image's draws are then those of its place in the epoch.
        normalization: (mean, std), each a float or one per channel, that floating images went
            through; uint8 images go through it here. ``eps`` and ``alpha`` stay in image units.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ...
        amp: ``auto`` (bf16 on CUDA), ``none`` or ``bf16``.
        out: folder of the run: settings, a row an epoch, checkpoint, weights, pictures, summary.
            None: no file is left.
        resume: continue the run in `out` from its checkpoint, bit for bit on the CPU; start it if
            there is none. Network, images and loss must be those of that run.
        log: loggers in `out` beside ``metrics.jsonl``: ``csv``, ``tensorboard``, ``wandb``.
        seed: of the order, the augmentation and every draw; the global generators are as before
            afterwards.
        strip: give the plain network back, without auxiliary norms; False leaves it dual.
        verbose: print the lines that the command prints.
        **method_options: options of the method (``k``, ``eps``, ...), and settings of a run by
            name: ``momentum``, ``nesterov``, ``warmup``, ``decay_every``, ``drop_last``,
            ``corruptions``, ``workers`` (of a `Dataset`; None: this process), ``ema`` (the
            averaged weights are those that `model` ends with), ``time``, ``capture``, ...

    Returns:
        What ``summary.json`` holds: ``sa``, ``ra``, ``hscore``, ``cost``, ``seconds``, ...

    Raises:
        ValueError, TypeError: model, images or settings that cannot be used; the message names the
            argument.
        RuntimeError: a loss became NaN or infinite.
        TimeoutError: the time of ``time="2h"`` is over; ``resume=True`` goes on in `out`.
    """
    check_kind("model", model, nn.Module)
    _check_out(out)
    check_given("train", train)
    if validation is not None:
        check_given("validation", validation)
    given = moved_options(method_options | {"augment": augment})
    augment = of_tensors(given.pop("augment"))
    settings, texts, objects = sorted_keywords(method, given)
    if out is None and settings.get("time"):
        raise ValueError(f"time={settings['time']!r}: name out, the folder that keeps the run")
    input_range = image_units.input_range(objects.get("input_range", (0.0, 1.0)))
    normalization = per_channel(normalization)
    if isinstance(train, DataLoader):
        _warn_of_same_rows(train)
        settings |= settings_of_loader(train, settings, batch_size)
    else:
        settings["batch_size"] = default_batch_size(train) if batch_size is None else batch_size
    config = Config(
        arch=f"{MODEL}{type(model).__name__}",
        dataset=f"{DATA}{name_of_data(train)}",
        method=method,
        epochs=epochs,
        optimizer=optimizer,
        lr=USUAL_LR.get(optimizer, USUAL_LR["sgd"]) if lr is None else lr,
        weight_decay=weight_decay,
        schedule=schedule,
        augment=augment,
        device=device,
        amp=amp,
        seed=seed,
        out=None if out is None else str(out),
        log=log_option(log),
        options=texts,
        **settings,
    )
    build = functools.partial(
        given_parts,
        model=model,
        train=train,
        validation=validation,
        input_range=input_range,
        normalization=normalization,
        objects=objects,
    )
    runs: list[Trainer] = []
    with _folder(out, resume) as folder, _as_before(model, config, strip), _plain_errors():
        summary = train_run(
            config,
            resume=resume,
            build=build,
            folder=folder,
            reporter=Reporter() if verbose and job.of_group().is_main else None,
            watch=runs.append,
            pictures=out is not None,
        )
        if runs[0].average is not None:
            model.load_state_dict(runs[0].deployed().state_dict())
    return summary if out is not None else replace(summary, folder="")


def _warn_of_same_rows(loader: DataLoader[Any]) -> None:
    if job.of_group().world > 1 and type(loader.sampler) in (RandomSampler, SequentialSampler):
        warnings.warn(
            "train: each process reads all of the images, in the same order: give the DataLoader a "
            "DistributedSampler, or pass its dataset, which is shared out",
            stacklevel=3,
        )


def _check_out(out: object) -> None:
    """Check that `out` can name a folder.

    Raises:
        TypeError: it is neither text nor a path.
        ValueError: it is empty, which would be the current directory.
    """
    if out is not None and not isinstance(out, str | Path):
        raise TypeError(f"out is a {type(out).__name__}: expected the name of a folder, or None")
    if out == "":
        raise ValueError("out='': expected the name of a folder, or None")


@contextlib.contextmanager
def _folder(out: str | Path | None, resume: bool) -> Iterator[RunFolder]:
    """Give the run its folder, one that goes again where none was named.

    Raises:
        ValueError: it holds a run that is not to be continued, or there is none to continue.
    """
    if out is None:
        if resume:
            raise ValueError("resume=True: give the run's folder with out")
        with tempfile.TemporaryDirectory(prefix="entprop_fast-") as temporary:
            yield RunFolder(Path(temporary), lasting=False)
        return
    folder = RunFolder(Path(out))
    with job.joined(job.of_group()), in_step.together():
        if not resume and job.current().is_main:
            _check_free(folder)
    yield folder


def _check_free(folder: RunFolder) -> None:
    try:
        folder.check_free()
    except UsageError as error:
        reason = str(error).partition(":")[0]
        raise ValueError(
            f"out: {reason}: continue it with resume=True, or name another folder"
        ) from None


@contextlib.contextmanager
def _as_before(model: nn.Module, config: Config, strip: bool) -> Iterator[None]:
    """Put back, afterwards, the global generators and the model's mode; strip the model.

    After an error it is dual if it was so before.
    """
    device, training, stripped = resolve_device(config.device), model.training, not is_dual(model)
    drawn = checkpoint.random_state(device)
    try:
        yield
        stripped = strip
    finally:
        checkpoint.restore_random_state(drawn, device)
        if not training:
            model.eval()
        for parameter in model.parameters():
            parameter.grad = None
        if stripped:
            strip_auxiliary(model)


@contextlib.contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise for a program what commands print: a `TypeError` as such, and the end of the time."""
    try:
        yield
    except OutOfTime as stopped:
        raise TimeoutError(
            f"stopped by {stopped}: {stopped.saved or 'nothing was begun that could be kept'}; "
            "fit(..., resume=True) goes on"
        ) from None
    except UsageError as error:
        if isinstance(error.__cause__, TypeError):
            raise TypeError(str(error)) from error.__cause__
        raise

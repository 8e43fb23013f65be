"""Train a caller's own network on a caller's own images: `entprop_fast.fit`."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from entprop_fast.lab import checkpoint
from entprop_fast.lab.data.given_loader import rows_of
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.config import SETTINGS, Config
from entprop_fast.lab.training.device import resolve_device
from entprop_fast.lab.training.engine import train as train_run
from entprop_fast.lab.training.errors import UsageError
from entprop_fast.lab.training.finish import Summary
from entprop_fast.lab.training.given_data import Given, check_given
from entprop_fast.lab.training.given_parts import given_parts, is_dual
from entprop_fast.lab.training.loggers import log_option
from entprop_fast.lab.training.method_settings import complete, settable
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.lab.training.user_code import DATA, MODEL
from entprop_fast.layers import strip_auxiliary
from entprop_fast.methods import METHODS, image_units
from entprop_fast.methods.model_checks import check_kind
from entprop_fast.name_errors import unknown
from entprop_fast.options import create

__all__ = ["fit"]

USUAL_BATCH = 128
USUAL_LR = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}

# Settings of a command's run that the arguments stand in place of, or that have nothing to set.
_NOT_HERE = {
    **dict.fromkeys(("arch", "weights"), "the network is model"),
    **dict.fromkeys(("dataset", "data_dir", "image_size", "train_size"), "the images are train"),
    "normalize": "normalization=(mean, std) says what images went through",
    "patience": "early stopping goes by training images that only the commands hold out",
    "generator": "seed decides every draw",
}


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
            at the begin of every epoch, and ``set_epoch`` is called where there is one.
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
        augment: ``none`` or ``crop-flip``; a `DataLoader` augments itself.
        normalization: (mean, std), each a float or one per channel, that floating images went
            through; uint8 images go through it here. ``eps`` and ``alpha`` stay in image units.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N``, ...
        amp: ``auto`` (bf16 on CUDA), ``none`` or ``bf16``.
        out: folder of the run: settings, a row an epoch, checkpoint, weights, pictures, summary.
            None: no file is left.
        resume: continue the run in `out` from its checkpoint, bit for bit on the CPU; start it if
            there is none.
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
    """
    check_kind("model", model, nn.Module)
    check_given("train", train)
    if validation is not None:
        check_given("validation", validation)
    settings, texts, objects = _sorted(method, method_options)
    input_range = image_units.input_range(objects.get("input_range", (0.0, 1.0)))
    normalization = _per_channel(normalization)
    if isinstance(train, DataLoader):
        settings |= _of_loader(train, settings, batch_size, augment)
    else:
        settings["batch_size"] = _batch_size(train) if batch_size is None else batch_size
    config = Config(
        arch=f"{MODEL}{type(model).__name__}",
        dataset=f"{DATA}{_name_of(train)}",
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
            reporter=Reporter() if verbose else None,
            watch=runs.append,
            pictures=out is not None,
        )
        if runs[0].average is not None:
            model.load_state_dict(runs[0].deployed().state_dict())
    return summary if out is not None else replace(summary, folder="")


def _sorted(
    method: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sort keywords: settings of the run, all options that text can say, and the other options.

    Raises:
        ValueError, TypeError: there is no such keyword, or its value is not valid.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    for name in given:
        if name in _NOT_HERE:
            raise TypeError(f"{name}={given[name]!r}: {_NOT_HERE[name]}")
    settings = {name: value for name, value in given.items() if name in SETTINGS}
    options = {name: value for name, value in given.items() if name not in SETTINGS}
    texts = {
        name: value
        for name, value in options.items()
        if name in settable(method) and not isinstance(value, nn.Module)
    }
    objects = {name: value for name, value in options.items() if name not in texts}
    said = {name: value for name, value in options.items() if name != "criterion"}
    create(METHODS[method].Options, said, owner=f"method {method!r}")  # before anything is done
    return settings, complete(method, texts), objects


def _of_loader(
    loader: DataLoader[Any], settings: Mapping[str, Any], batch_size: int | None, augment: str
) -> dict[str, Any]:
    """Return the settings that a loader decides.

    Raises:
        ValueError: one of them was given, too.
    """
    given = {name: settings[name] for name in ("drop_last", "workers") if name in settings}
    if batch_size is not None:
        given["batch_size"] = batch_size
    if augment != "none":
        given["augment"] = augment
    for name, value in given.items():
        raise ValueError(f"{name}={value!r}: train is a DataLoader, which has its own")
    return {"batch_size": rows_of(loader), "drop_last": bool(loader.drop_last)}


def _batch_size(train: Any) -> int:
    return max(1, min(USUAL_BATCH, len(train[0] if isinstance(train, tuple) else train)))


def _name_of(train: Given) -> str:
    if isinstance(train, tuple):
        return "tensors"
    return type(train.dataset if isinstance(train, DataLoader) else train).__name__


def _per_channel(
    normalization: tuple[Any, Any] | None,
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std with as many numbers each."""
    if image_units.normalization(normalization) is None or normalization is None:
        return None
    mean, std = (torch.as_tensor(part).double().flatten().tolist() for part in normalization)
    channels = max(len(mean), len(std))
    mean, std = (part * channels if len(part) == 1 else part for part in (mean, std))
    return tuple(mean), tuple(std)


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
    if not resume:
        try:
            folder.check_free()
        except UsageError as error:
            reason = str(error).partition(":")[0]
            raise ValueError(
                f"out: {reason}: continue it with resume=True, or name another folder"
            ) from None
    yield folder


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
    """Raise a `TypeError` as such, which commands turn into an error of their usage."""
    try:
        yield
    except UsageError as error:
        if isinstance(error.__cause__, TypeError):
            raise TypeError(str(error)) from error.__cause__
        raise

"""Run a user's functions that make networks and images: those named on a command line alone.

A recipe, a run's settings or a checkpoint may name such a function, too, but anybody may have
written a file: a name in one is imported only where the command line gives the same.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from entprop_fast.lab.data import ImageData, ImageFiles, ImageSet
from entprop_fast.lab.data.fewer_images import fewer_tests, fewer_training
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.deploy import NetworkSpec
from entprop_fast.lab.training.given_data import GivenImages, check_same_shape, image_set_of
from entprop_fast.lab.training.own_names import DATA, FUNCTION, MODEL
from entprop_fast.methods.image_units import ImageUnits


def named(model: str | None, data: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put the functions that a command line names into its settings.

    Args:
        model: of ``--model``, or None.
        data: of ``--data``, or None.
        settings: by name, with what else was given.

    Raises:
        ValueError: one is given beside what it stands in place of.
    """
    found = dict(settings)
    for name, flag, beginning, setting in (
        (model, "--model", MODEL, "arch"),
        (data, "--data", DATA, "dataset"),
    ):
        if name is None:
            continue
        if found.get(setting) is not None:
            raise ValueError(f"{flag} {name} stands in place of --{setting}: give one of them")
        _parts_of_name(name, flag)
        found[setting] = f"{beginning}{name}"
        found["imports"] = (*found.get("imports", ()), name)
    return found


def own_network(arch: str, imports: tuple[str, ...]) -> Callable[..., nn.Module] | None:
    """Return what makes the network that a run's settings name; None where it is none's own.

    Args:
        arch: the setting.
        imports: functions that the command line named.

    Returns:
        A function of ``num_classes`` and ``in_channels``.

    Raises:
        ValueError: it is somebody's own, and was not named on the command line.
    """
    if not arch.startswith(MODEL):
        return None
    _check_named(imports, arch=arch)
    return network_maker(arch.removeprefix(MODEL))


def network_maker(name: str) -> Callable[..., nn.Module]:
    """Return a function of ``num_classes`` and ``in_channels`` that calls the user's.

    Raises:
        ValueError: (where it is called) there is no such function, or it fails.
        TypeError: (likewise) it returns no network.
    """

    def make(*, num_classes: int, in_channels: int) -> nn.Module:
        function = _function(name, "--model")
        given: dict[str, int] = {"num_classes": num_classes}
        if _takes(function, "in_channels"):
            given["in_channels"] = in_channels
        if not _takes(function, "num_classes"):
            raise ValueError(
                f"--model {name}: the function is called with num_classes, and in_channels if it "
                "takes it; it does not take num_classes"
            )
        made = _called(f"--model {name}", function, given)
        if not isinstance(made, nn.Module):
            raise TypeError(f"--model {name} returned a {type(made).__name__}: nn.Module wanted")
        return made

    return make


def own_images(config: Config) -> ImageSet | None:
    """Return the images that a run's settings name; None where they are none's own.

    ``train_size`` and ``test_size`` keep stratified subsets of tensors.

    Raises:
        ValueError, TypeError: as `own_network`, or the function gives no images; settings that are
            of other data sets.
    """
    dataset = config.dataset
    _check_named(config.imports, arch=config.arch, dataset=dataset)
    if not dataset.startswith(DATA):
        return None
    for setting in ("data_dir", "image_size"):
        if (value := getattr(config, setting)) is not None:
            raise ValueError(f"{setting}={value}: images of --data are as its function gives them")
    name = dataset.removeprefix(DATA)
    images = make_images(name, workers=config.workers)
    for setting in ("train_size", "test_size"):
        if not isinstance(images, ImageData) and (value := getattr(config, setting)) is not None:
            raise ValueError(f"{setting}={value}: --data {name} gives no tensors to choose from")
    if not isinstance(images, ImageData):
        return images
    images = fewer_training(images, config.train_size, config.seed)
    return fewer_tests(images, config.test_size)


def make_images(name: str, *, workers: int | None = None) -> ImageSet:
    """Call the user's function, and return what it gives as a data set.

    Raises:
        ValueError, TypeError: there is no such function, it fails, or gives no images.
    """
    return _image_set(_made(name), name, workers)


def own_test_images(
    spec: NetworkSpec, name: str, say: Callable[[str], None], *, workers: int | None = None
) -> ImageSet:
    """Call the user's function for test images alone, in [0, 1] or normalised as the run's were.

    Args:
        spec: of the network; where it has ``mean`` and ``std``, images with values outside of
            [0, 1] have been through them, as those of `entprop_fast.fit` had.
        name: of the function.
        say: is told that they have.
        workers: as `make_images` takes them.

    Raises:
        ValueError, TypeError: as `make_images`, or they do not fit the network.
    """
    made = _made(name)
    try:
        images = _image_set(made, name, workers)
    except ValueError:
        if not spec.mean:
            raise
        units = ImageUnits((0.0, 1.0), (spec.mean, spec.std))
        images = _image_set(made, name, workers, units)
        say(f"--data {name}: floating images are normalised, by the run's mean and std")
    if images.num_classes > spec.num_classes or images.image_shape[0] != spec.in_channels:
        raise ValueError(
            f"--data {name} has {images.num_classes} classes and {images.image_shape[0]} channels, "
            f"the network was trained for {spec.num_classes} and {spec.in_channels}"
        )
    return images.test if isinstance(images, GivenImages) and images.test else images


def _made(name: str) -> Any:
    return _called(f"--data {name}", _function(name, "--data"), {})


def _image_set(
    made: Any, name: str, workers: int | None, normalized: ImageUnits | None = None
) -> ImageSet:
    try:
        if isinstance(made, ImageData):
            check_same_shape(made.train_images.shape[1:], made.test_images.shape[1:])
        if isinstance(made, ImageData | ImageFiles):
            return made
        return image_set_of(made, f"{DATA}{name}", workers=workers, normalized=normalized)
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"--data {name}: {error}") from error


def _check_named(imports: tuple[str, ...], *, arch: str, dataset: str = "") -> None:
    """Refuse what settings alone name, all of it at once.

    Raises:
        ValueError: one is somebody's own, and was not named on the command line.
    """
    found, flags = [], []
    for setting, value, beginning, flag in (
        ("arch", arch, MODEL, "--model"),
        ("dataset", dataset, DATA, "--data"),
    ):
        name = value.removeprefix(beginning)
        if value.startswith(beginning) and name not in imports:
            found.append(f"{setting} {value!r}")
            flags.append(f"{flag} {name if ':' in name else FUNCTION}")
    if found:
        kind = "is one's own, and no code is run because a file names it"
        if len(found) > 1:
            kind = "are one's own, and no code is run because a file names them"
        raise ValueError(f"{' and '.join(found)} {kind}: give {' '.join(flags)}")


def _parts_of_name(name: str, flag: str) -> tuple[str, str]:
    module, colon, function = name.partition(":")
    words = (*module.split("."), *function.split("."))
    if not colon or not all(word.isidentifier() for word in words):
        raise ValueError(f"{flag} {name}: expected {FUNCTION}, such as my_code:make")
    return module, function


def _function(name: str, flag: str) -> Callable[..., Any]:
    """Import a module, from the current directory as well, and find the function in it."""
    module, path = _parts_of_name(name, flag)
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # the module runs, and may fail in any way
        raise ValueError(f"{flag} {name}: {module} cannot be imported: {_said(error)}") from error
    for word in path.split("."):
        if not hasattr(found, word):
            raise ValueError(f"{flag} {name}: {module} has no {path}")
        found = getattr(found, word)
    if not callable(found):
        raise ValueError(f"{flag} {name}: {path} is a {type(found).__name__}: a function wanted")
    return found  # type: ignore[no-any-return]


def _called(what: str, function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    try:
        return function(**given)
    except (Exception, SystemExit) as error:  # it is the user's
        raise ValueError(f"{what} failed: {_said(error)}") from error


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Return whether a function can be called with a keyword."""
    parameters = inspect.signature(function).parameters
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return True
    return name in parameters and parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY


def _said(error: BaseException) -> str:
    """Write an error of a user's code with its place: the line, not the whole traceback."""
    passed = (__file__, importlib.__file__)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in passed and not frame.filename.startswith("<frozen")
    ]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"

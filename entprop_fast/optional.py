"""Libraries of the extras: one way to say that one is missing, and torchvision beside any torch."""

from __future__ import annotations

import importlib
import multiprocessing
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# The two ops whose absence stops `import torchvision`, as its C++ declares them.
_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_SCHEMAS = {"nms": _NMS, "qnms": _NMS}
_LIBRARIES: list[torch.library.Library] = []  # ops go when the library that declared them does


@contextmanager
def needs(module: str, *, extra: str, purpose: str) -> Iterator[None]:
    """Around a late import: a missing ``module`` becomes an error that says what to install.

    A module that is there, but fails to import something of its own, is reported as it is.

    Args:
        module: the top-level module of the library.
        extra: the extra of this package that brings it.
        purpose: what needs it, the beginning of the message.

    Raises:
        ImportError: the module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        # Left to itself, pip takes the newest torchvision, and the torch that it was built for.
        pinned = f" torch=={torch.__version__}" if extra == "vision" else ""
        raise ImportError(
            f"{purpose} needs {module}: pip install 'entprop_fast[{extra}]'{pinned}"
        ) from error


def import_torchvision(module: str, *, purpose: str) -> Any:
    """A module of torchvision, ``torchvision.<module>``.

    Raises:
        ImportError: torchvision is not installed, or does not load beside this torch.
    """
    load_torchvision(purpose=purpose)  # itself first: a part alone may be loaded
    return importlib.import_module(f"torchvision.{module}")


def load_torchvision(*, purpose: str) -> None:
    """``import torchvision``, also where the library of its compiled ops cannot be loaded.

    PyPI's wheel is built for CUDA; beside a CPU build of torch its library does not load, and its
    import then fails on the fakes of ops that nobody declared. Declared without a kernel, they let
    everything else work; calling one is still an error. One warning says so.

    Raises:
        ImportError: it is not installed, or another reason keeps it from loading.
    """
    with needs("torchvision", extra="vision", purpose=purpose):
        try:
            try:
                importlib.import_module("torchvision")
            except RuntimeError as error:
                if not any(f"torchvision::{op} does not exist" in str(error) for op in _SCHEMAS):
                    raise
                _declare_missing_ops()
                _warn_of_missing_ops(importlib.import_module("torchvision").__version__)
        except (RuntimeError, AttributeError, AssertionError) as error:
            raise ImportError(
                f"{purpose} needs torchvision, which does not load beside this torch: {error}"
            ) from error


def _declare_missing_ops() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, arguments in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}{arguments}")
    _LIBRARIES.append(library)


def _warn_of_missing_ops(version: str) -> None:
    if multiprocessing.parent_process() is not None:  # the first process of a command says it
        return
    warnings.warn(
        f"torchvision {version} was built for another torch than {torch.__version__}: its compiled "
        "ops (nms, roi_align, ...) are missing, which nothing here needs",
        RuntimeWarning,
        stacklevel=3,
    )

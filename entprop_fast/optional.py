"""Ask for the libraries of the extras, and load torchvision beside any torch."""

from __future__ import annotations

import importlib
import multiprocessing
import warnings
from importlib.util import find_spec
from typing import Any

import torch

# The two ops whose absence stops `import torchvision`, as its C++ declares them.
_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_SCHEMAS = {"nms": _NMS, "qnms": _NMS}
_LIBRARIES: list[torch.library.Library] = []  # ops go when the library that declared them does


def require(*modules: str, extra: str, purpose: str) -> None:
    """Refuse to go on without libraries of an extra, before they are imported.

    Args:
        modules: top-level modules.
        extra: the extra of this package that brings them.
        purpose: what needs them, the beginning of the message.

    Raises:
        ImportError: one is not installed; the message says what to install.
    """
    if missing := [name for name in modules if not _is_there(name)]:
        # Left to itself, pip takes the newest torchvision, and the torch that it was built for.
        pinned = f" torch=={torch.__version__}" if extra == "vision" else ""
        raise ImportError(
            f"{purpose} needs {', '.join(missing)}: pip install 'entprop_fast[{extra}]'{pinned}"
        )


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # an import hook may say so
        return False
    except ValueError:  # made by hand, or half imported: without a specification
        return True


def import_torchvision(module: str, *, purpose: str) -> Any:
    """Import a module of torchvision, ``torchvision.<module>``.

    Raises:
        ImportError: torchvision is not installed, or does not load beside this torch.
    """
    load_torchvision(purpose=purpose)  # itself first: a part alone may be loaded
    return importlib.import_module(f"torchvision.{module}")


def load_torchvision(*, purpose: str) -> None:
    """Import torchvision, also where the library of its compiled ops cannot be loaded.

    PyPI's wheel is built for CUDA; beside a CPU build of torch its library does not load, and its
    import then fails on the fakes of ops that nobody declared. Declared without a kernel, they let
    everything else work; calling one is still an error. One warning says so.

    Raises:
        ImportError: it is not installed, or another reason keeps it from loading.
    """
    require("torchvision", extra="vision", purpose=purpose)
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

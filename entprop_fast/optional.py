"""One way to say that a library of an extra is missing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
        raise ImportError(
            f"{purpose} needs {module}: pip install 'entprop_fast[{extra}]'"
        ) from error


def import_torchvision(module: str, *, purpose: str) -> Any:
    """A module of torchvision, ``torchvision.<module>``.

    Raises:
        ImportError: torchvision is not installed, or it was built for another torch than this.
    """
    with needs("torchvision", extra="vision", purpose=purpose):
        try:
            importlib.import_module("torchvision")  # itself first: a part alone may be loaded
            return importlib.import_module(f"torchvision.{module}")
        except RuntimeError as error:  # its ops are not those of this torch
            raise ImportError(
                f"{purpose} needs torchvision, which does not load beside this torch: {error}"
            ) from error

"""Read CIFAR's pickled files without running anything that is in them.

A pickle is a program: it may name any function and have it called. CIFAR's batches need three names
of NumPy, and older writers one of codecs; here each stands for a harmless object of this file, and
every other name ends the reading.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Dtype:
    """In place of ``numpy.dtype``: bytes are the only kind that a batch holds."""

    def __init__(self, code: object, *flags: object) -> None:
        if code not in ("u1", b"u1"):
            raise ValueError(f"an array of dtype {code!r}; images are bytes (u1)")

    def __setstate__(self, state: object) -> None:
        """Take byte order and fields, of which bytes have none."""


class _Ndarray:
    """In place of ``numpy.ndarray``: filled by the pickle's state, then read as `values`."""

    values: NDArray[np.uint8]

    def __setstate__(self, state: object) -> None:
        match state:
            case (_, tuple(shape), _Dtype(), False | 0, bytes(data) | str(data)):
                content = data.encode("latin1") if isinstance(data, str) else data
                self.values = np.frombuffer(content, dtype=np.uint8).reshape(shape)
            case _:
                raise ValueError("an array whose state is not NumPy's")


def _reconstruct(kind: object, shape: object, code: object) -> _Ndarray:
    """Stand in for NumPy's function: make the array that the state will fill."""
    return _Ndarray()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Stand in for ``codecs.encode``: how bytes are written in an old protocol."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise ValueError(f"text encoded as {encoding!r}; latin1 was expected")
    return text.encode("latin1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise ValueError(f"it asks for {module}.{name}, which no CIFAR file needs") from None


def read_pickle(content: bytes, where: str) -> dict[str, Any]:
    """Read a dictionary of numbers, strings (as bytes), lists and uint8 arrays."""
    try:
        found = _Reader(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(found, dict):
            raise TypeError(f"it holds {type(found).__name__}, a dictionary was expected")
        return {_text(key): _plain(value) for key, value in found.items()}
    except Exception as error:  # damaged bytes lead the reader anywhere
        raise ValueError(f"{where} is refused: {error}") from error


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain(value: object) -> object:
    return value.values if isinstance(value, _Ndarray) else value

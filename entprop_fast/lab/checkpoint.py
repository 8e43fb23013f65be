"""Keep checkpoints that no kill, full disk or flipped bit can turn into a wrong run.

A file is what ``torch.save`` writes, followed by one line with the SHA-256 of those bytes: torch
still loads it (its reader looks for the zip directory from the end), and a file and its checksum
can never disagree. ``torch.load`` alone does not notice a flipped bit in a tensor.

The newest is ``checkpoint.pt``, the one before it ``checkpoint.prev.pt``. Where more are kept,
older ones are ``checkpoint.prev2.pt``, ``checkpoint.prev3.pt``, ...
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from entprop_fast.devices import random_state_of, set_random_state_of
from entprop_fast.lab.files import write_atomically

CURRENT = "checkpoint.pt"
PREVIOUS = "checkpoint.prev.pt"
CORRUPT = "checkpoint.corrupt.pt"
MOST_KEPT = 100

State = dict[str, Any]

_MARK = b"\nentprop-sha256 "
_TRAILER = len(_MARK) + 64 + 1


class CorruptCheckpoint(ValueError):
    """A checkpoint file whose bytes are not those that were written."""


def save(folder: Path, state: State, keep: int = 2) -> None:
    """Make ``state`` the folder's checkpoint; those before it move on by a name, ``keep`` in all.

    At every moment of the call the folder holds at least one whole checkpoint. One that is too old
    and cannot be removed stays.
    """
    waiting = folder / (CURRENT + ".new")
    write(waiting, state)
    kept = [folder / _name(age) for age in range(keep)]
    if kept[0].exists():
        for age in reversed(range(1, keep)):
            with contextlib.suppress(FileNotFoundError):
                os.replace(kept[age - 1], kept[age])
    os.replace(waiting, kept[0])
    for path in newest_first(folder):
        if path not in kept:
            with contextlib.suppress(OSError):
                path.unlink()
    _sync_folder(folder)


def newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, whole or not."""
    try:
        held = set(os.listdir(folder))
    except FileNotFoundError:
        return []
    return [folder / name for name in map(_name, range(MOST_KEPT)) if name in held]


def snapshot(value: Any) -> Any:
    """Copy a state, its tensors to the host, where nothing that trains on changes it.

    What shares memory in a state, such as tied weights, still does.
    """
    return _copied(value, {})


def write(path: Path, state: State) -> None:
    """Write one file for `read`, atomically."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    write_atomically(path, payload, _MARK, _digest(payload), b"\n")


def read(path: Path, device: torch.device | str = "cpu") -> State:
    """Read the state in one checkpoint file, its tensors on ``device``; run no pickled code.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptCheckpoint: the file is truncated, altered, or no checkpoint of ours.
    """
    payload = io.BytesIO(_whole_payload(path))
    try:
        state = torch.load(payload, map_location=device, weights_only=True)
    except Exception as error:  # bytes that were made to be read lead the reader anywhere
        raise CorruptCheckpoint(f"{path} cannot be read: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise CorruptCheckpoint(f"{path} holds a {type(state).__name__}, not a checkpoint")
    return state


def read_newest(
    folder: Path, say: Callable[[str], None], device: torch.device | str = "cpu"
) -> State | None:
    """Read the newest whole checkpoint of a run folder, or None when it has none yet.

    Each corrupt one is named through ``say``, and the one before it is used.

    Raises:
        CorruptCheckpoint: there are checkpoints, and none of them is whole.
    """
    failures = []
    for path in newest_first(folder):
        try:
            state = read(path, device)
        except FileNotFoundError:
            continue
        except CorruptCheckpoint as error:
            failures.append(str(error))
            continue
        for failure in failures:
            say(f"{failure}; using {path.name}, saved before it")
        return state
    if failures:
        raise CorruptCheckpoint(f"{'; '.join(failures)}; no whole checkpoint is left")
    return None


def set_corrupt_aside(folder: Path) -> None:
    """Rename a corrupt current checkpoint, so that the next save keeps the good previous one."""
    current = folder / CURRENT
    try:
        _whole_payload(current)
    except FileNotFoundError:
        return
    except CorruptCheckpoint:
        os.replace(current, folder / CORRUPT)


def random_state(device: torch.device) -> State:
    """Return the state of the global random number generators, as plain data."""
    legacy: Any = np.random.get_state(legacy=True)  # the form that `set_state` takes back
    kind, keys, position, has_gauss, cached = legacy
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": random_state_of(device),  # or another accelerator's
    }


def restore_random_state(state: State, device: torch.device) -> None:
    """Set the generators back to a `random_state` taken on the same kind of device."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None:
        set_random_state_of(device, state["cuda"].cpu())


def _name(age: int) -> str:
    """Return the file name of a checkpoint that so many newer ones have followed."""
    return CURRENT if age == 0 else PREVIOUS.replace(".pt", f"{age if age > 1 else ''}.pt")


def _copied(value: Any, known: dict[tuple[Any, ...], Tensor]) -> Any:
    if isinstance(value, Tensor):
        memory = value.untyped_storage().data_ptr(), value.storage_offset()
        key = (*memory, value.device, value.dtype, value.shape, value.stride())
        if key not in known:
            known[key] = value.detach().to("cpu", copy=True)
        return known[key]
    if isinstance(value, dict):
        return {name: _copied(one, known) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(one, known) for one in value)
    return value


def _whole_payload(path: Path) -> memoryview:
    """Read what ``torch.save`` wrote into a file that is still as it was saved."""
    data = memoryview(path.read_bytes())
    payload, trailer = data[:-_TRAILER], bytes(data[-_TRAILER:])
    if not trailer.startswith(_MARK):
        raise CorruptCheckpoint(f"{path} is truncated, or is no checkpoint of entprop_fast")
    if trailer != _MARK + _digest(payload) + b"\n":
        raise CorruptCheckpoint(f"{path} is corrupt: its SHA-256 is not the one it was saved with")
    return payload


def _digest(payload: memoryview) -> bytes:
    return hashlib.sha256(payload).hexdigest().encode()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _sync_folder(folder: Path) -> None:
    """Make the renames durable; not every platform can open a folder."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Write several files into a folder, and none over one that is there, unless asked to."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from entprop_fast.lab.files import write_atomically
from entprop_fast.lab.training import run_folder
from entprop_fast.lab.training.errors import UsageError


def check_free(folder: Path, names: Collection[str], *, overwrite: bool) -> None:
    """Refuse to write where something is.

    Args:
        folder: may be missing.
        names: of the files that will be written.
        overwrite: they may be there.

    Raises:
        UsageError: one is there, or the folder is that of a run, whose files have such names.
    """
    if (folder / run_folder.CONFIG).exists() or (folder / run_folder.METRICS).exists():
        raise UsageError(f"{folder} is the folder of a run: name another one")
    held = [name for name in names if os.path.lexists(folder / name)]
    if held and not overwrite:
        raise UsageError(f"{folder} already holds {held[0]}: overwrite it, or name another folder")


def write_new(folder: Path, files: Mapping[str, bytes], *, overwrite: bool) -> None:
    """Write files by name, each whole or not at all, none through a link.

    Raises:
        UsageError: as `check_free`.
        OSError: the folder cannot be written.
    """
    check_free(folder, files, overwrite=overwrite)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_atomically(folder / name, data)

"""Read files of a data set out of a folder, or out of an archive that is never unpacked."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath


def read_folder(folder: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Read files in a folder; `limits` are their names, and the most bytes that each may have."""
    found: dict[str, bytes] = {}
    for name, limit in limits.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{folder} lacks {name}")
        _check_size(path, path.stat().st_size, limit)
        found[name] = path.read_bytes()
    return found


def read_archive(archive: Path, folder: str, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Read regular files in a tar archive in place: nothing is written to disk.

    Args:
        archive: ``.tar``, or compressed in any way that Python knows.
        folder: of the files within it.
        limits: names within ``folder``, and the most bytes that each may have unpacked.
    """
    wanted = {f"{folder}/{name}": name for name in limits}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _check_member(archive, member)
                name = wanted.get(str(PurePosixPath(member.name)))
                content = tar.extractfile(member) if name and member.isreg() else None
                if name is None or content is None:
                    continue
                _check_size(f"{member.name} in {archive}", member.size, limits[name])
                found[name] = content.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive} cannot be read as an archive: {error}") from error
    if absent := [name for name in limits if name not in found]:
        raise ValueError(f"{archive} lacks {folder}/{absent[0]}")
    return found


def inside(file: str) -> bool:
    """Return whether a path written in a data set's list or archive stays within its folder."""
    path = PurePosixPath(file.replace("\\", "/"))
    return bool(file) and not path.is_absolute() and ".." not in path.parts


def _check_member(archive: Path, member: tarfile.TarInfo) -> None:
    if not inside(member.name):
        raise ValueError(f"{archive} is refused: its member {member.name!r} lies outside of it")
    if not (member.isreg() or member.isdir()):
        raise ValueError(f"{archive} is refused: its member {member.name!r} is a link or a device")


def _check_size(what: str | Path, size: int, limit: int) -> None:
    if size > limit:
        raise ValueError(f"{what} has {size:,} bytes, at most {limit:,} were expected")

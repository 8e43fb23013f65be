"""Fetch packages of npm's registry by their locked versions, and read files within them.

A tarball is read in place: nothing of it is unpacked or run, and one with a link is refused.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entprop_fast.lab.data.file_sources import read_archive
from entprop_fast.lab.files import write_atomically

REGISTRY = "https://registry.npmjs.org"

_MOST_PACKED, _MOST_UNPACKED = 2**26, 2**28  # bytes of a tarball, and of a file within one
_WAIT = 60  # seconds for a byte


@dataclass(frozen=True)
class Package:
    """Lock a package to a version and its bytes.

    Attributes:
        name: in the registry.
        version: of the package.
        sha512: of the tarball, in base64, as the registry's metadata have it (``integrity``).
        licence: of its pictures or data, an SPDX identifier.
        by: whose work it is.
        source: where that comes from.
    """

    name: str
    version: str
    sha512: str
    licence: str
    by: str
    source: str

    @property
    def short(self) -> str:
        """The name without its scope."""
        return self.name.rpartition("/")[2]

    @property
    def url(self) -> str:
        """Where the registry has the tarball."""
        return f"{REGISTRY}/{self.name}/-/{self.short}-{self.version}.tgz"

    @property
    def file_names(self) -> tuple[str, ...]:
        """What the tarball is called, by us and by ``npm pack``."""
        packed = self.name.removeprefix("@").replace("/", "-")
        return f"{self.short}-{self.version}.tgz", f"{packed}-{self.version}.tgz"


def tarball(package: Package, folder: Path, say: Callable[[str], None]) -> Path:
    """Return a package's tarball in ``folder``, fetched where it is not there yet, and checked.

    Raises:
        FileNotFoundError: it is not there, and the registry does not give it.
        ValueError: it is another one than the locked one.
    """
    for name in package.file_names:
        if (path := folder / name).is_file():
            _check(package, path.read_bytes(), str(path))
            return path
    path = folder / package.file_names[0]
    folder.mkdir(parents=True, exist_ok=True)  # before anything is fetched
    say(f"fetching {package.url}")
    try:
        with urllib.request.urlopen(package.url, timeout=_WAIT) as answer:
            content = answer.read(_MOST_PACKED + 1)
    except (OSError, http.client.HTTPException) as error:
        raise FileNotFoundError(
            f"{package.url} cannot be fetched ({error}); put it into {folder} yourself: "
            f"npm pack {package.name}@{package.version}"
        ) from error
    _check(package, content, package.url)
    write_atomically(path, content)
    return path


def read_json(path: Path, names: Sequence[str]) -> list[Any]:
    """Read JSON files within a tarball, each an object or a list.

    Raises:
        ValueError: one is missing, too large or no JSON, or the tarball holds a link.
    """
    found = read_archive(path, "package", dict.fromkeys(names, _MOST_UNPACKED))
    read = []
    for name in names:
        try:
            read.append(json.loads(found[name]))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} in {path} is no JSON: {error}") from error
    return read


def _check(package: Package, content: bytes, where: str) -> None:
    found = base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != package.sha512:
        raise ValueError(
            f"{where} has sha512 {found}, {package.name} {package.version} is locked to "
            f"{package.sha512}: delete it, or fetch that version"
        )

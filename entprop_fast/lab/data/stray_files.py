"""Tell which files in a folder of images are images; name and count what is left out.

File managers, notebooks, archivers and network drives leave files and folders of their own behind;
none of them is data, whatever its suffix.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from entprop_fast.lab import stopping

# Pixels that Pillow decodes by itself; of an animation the first frame counts.
IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .bmp .dib .gif .ppm .pgm .pbm .pnm .tif .tiff .webp .avif "
    ".jp2 .j2k .jpx .tga .ico".split()
)

_NAMES = frozenset(
    "__macosx __pycache__ thumbs.db ehthumbs.db desktop.ini lost+found @eadir @recycle #recycle "
    "#snapshot $recycle.bin".split()
) | {"system volume information", "icon\r"}


def is_system_file(name: str) -> bool:
    """Return whether a file or folder is hidden, or a program's own: never an image."""
    return name.startswith(".") or name.endswith("~") or name.casefold() in _NAMES


def is_image(name: str) -> bool:
    """Return whether a file of this name is taken for an image."""
    return not is_system_file(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


class LeftOut:
    """Count what is not taken from a folder, by kind, and keep the first of each."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, kind: str, path: str) -> None:
        """Count one more of that kind."""
        count, first = self._found.get(kind, (0, path))
        self._found[kind] = count + 1, first

    def extend(self, other: LeftOut) -> None:
        """Add what another was told."""
        for kind, (count, first) in other._found.items():
            before, earlier = self._found.get(kind, (0, first))
            self._found[kind] = before + count, earlier

    def lines(self) -> tuple[str, ...]:
        """Return a text for each kind, the most frequent first."""
        most = sorted(self._found.items(), key=lambda item: -item[1][0])
        return tuple(
            f"{count:,} x {kind} ({first}{', ...' if count > 1 else ''})"
            for kind, (count, first) in most
        )


def class_folders_in(folder: Path, left_out: LeftOut, shown: str) -> list[str]:
    """List the folders in a folder, sorted; each is a class. What lies beside them is left out."""
    names = []
    for entry in os.scandir(folder):
        if entry.is_dir() and not is_system_file(entry.name):
            names.append(entry.name)
        elif entry.is_file() and is_image(entry.name):
            left_out.add("images beside the class folders", f"{shown}/{entry.name}")
        else:
            left_out.add(_kind(entry), f"{shown}/{entry.name}")
    return sorted(names)


def image_paths(folder: Path, left_out: LeftOut, shown: str) -> list[str]:
    """List the images in a folder and those within, as paths below it, in torchvision's order.

    Links are followed, but not into a folder that they come from.
    """
    found: list[tuple[str, list[str]]] = []
    for below, entries in _walk(folder, "", (), left_out, shown):
        images = []
        for entry in entries:
            if is_image(entry.name):
                images.append(f"{below}{entry.name}")
            else:
                left_out.add(_kind(entry), f"{shown}/{below}{entry.name}")
        found.append((below.rstrip("/"), sorted(images)))
    return [path for _, images in sorted(found) for path in images]


def _walk(
    folder: Path, below: str, parents: tuple[tuple[int, int], ...], left_out: LeftOut, shown: str
) -> Iterator[tuple[str, list[os.DirEntry[str]]]]:
    """Yield each folder as the beginning of its files' paths, and its files."""
    stopping.check()
    status = os.stat(folder / below)
    here = status.st_dev, status.st_ino
    if here in parents:
        left_out.add("links to a folder that holds them", f"{shown}/{below.rstrip('/')}")
        return
    files, folders = [], []
    for entry in os.scandir(folder / below):
        if not entry.is_dir():
            files.append(entry)
        elif is_system_file(entry.name):
            left_out.add(_kind(entry), f"{shown}/{below}{entry.name}")
        else:
            folders.append(entry.name)
    yield below, files
    for name in folders:
        yield from _walk(folder, f"{below}{name}/", (*parents, here), left_out, shown)


def _kind(entry: os.DirEntry[str]) -> str:
    name = entry.name
    if entry.is_dir():
        return f"{name}/"
    if name.startswith("._"):
        return "._*"
    if name.startswith("."):
        return name if name == ".DS_Store" else "hidden files"
    if name.casefold() in _NAMES:
        return name.strip()
    if name.endswith("~"):
        return "*~"
    return os.path.splitext(name)[1].lower() or "files without a suffix"

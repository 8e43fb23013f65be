"""Make the emoji set: draw every thing by every artist, split by thing and by artist, write it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entprop_fast.lab.data.contents import Watch, unwatched
from entprop_fast.lab.data.emoji import emoji_packages
from entprop_fast.lab.data.emoji.draw_emoji import (
    draw,
    icons_of,
    require_renderer,
    svg_of,
    synonyms,
)
from entprop_fast.lab.data.emoji.emoji_concepts import CLASSES, Concept, concepts_of, names_of
from entprop_fast.lab.data.emoji.npm_packages import Package, read_json, tarball
from entprop_fast.lab.data.emoji_set import LICENCES, file_name
from entprop_fast.lab.files import write_atomically

SIZES = range(8, 513)  # pixels
ARTIST, BOTH = "artist", "artist+concept"  # what is new in the two further test sets

_TEST_SHARE = 0.25  # of each class's pictures
_SEED = 0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Pictures:
    """Hold the drawn pictures, one row each.

    Attributes:
        images: uint8 ``[N, S, S, 3]``.
        labels: int64 ``[N]``.
        concepts: codes of the things.
        groups: what the split keeps together.
        styles: short names of the packages.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    concepts: NDArray[np.str_]
    groups: NDArray[np.str_]
    styles: NDArray[np.str_]


def build(out: Path, size: int, say: Say, watch: Watch[Any] = unwatched) -> Path:
    """Write ``emoji-SIZE.npz`` and the licences into a folder; tarballs are kept in ``npm`` there.

    Raises:
        ValueError: ``size`` out of range, a package that is not the locked one or cannot be read.
        FileNotFoundError: a package cannot be fetched.
        ImportError: resvg-py is not installed.
    """
    if size not in SIZES:
        raise ValueError(f"image_size = {size} must be {SIZES[0]} to {SIZES[-1]}")
    require_renderer()
    fetched = {
        package: tarball(package, out / "npm", say)
        for package in (*emoji_packages.STYLES, emoji_packages.CONCEPTS)
    }
    found = pictures(fetched.pop(emoji_packages.CONCEPTS), list(fetched.items()), size, say, watch)
    test, shift = splits(found)
    path = out / file_name(size)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=found.images,
        labels=found.labels,
        class_names=np.array(CLASSES),
        groups=found.groups,
        concepts=found.concepts,
        styles=found.styles,
        test=test,
        shift=shift,
    )
    write_atomically(path, buffer.getbuffer())
    write_atomically(out / LICENCES, emoji_packages.licences().encode())
    counts = ", ".join(f"{int((shift == name).sum()):,} {name}" for name in (ARTIST, BOTH))
    say(
        f"{path}: {len(test):,} pictures of {len(set(found.concepts)):,} things, "
        f"{int((~test & (shift == '')).sum()):,} training, {int(test.sum()):,} test, {counts}; "
        f"their licences are in {LICENCES}"
    )
    return path


def pictures(
    concepts_from: Path,
    styles: Sequence[tuple[Package, Path]],
    size: int,
    say: Say,
    watch: Watch[Any] = unwatched,
) -> Pictures:
    """Draw every concept of emojibase's tarball in every style's.

    Raises:
        ValueError: a tarball that is none of these packages.
    """
    emoji, unicode_names = read_json(concepts_from, ("en/data.json", "meta/unicode-names.json"))
    concepts = concepts_of(emoji)
    names = names_of(concepts, unicode_names)
    sets = []
    for package, path in styles:
        icons, characters = read_json(path, ("icons.json", "chars.json"))
        sets.append((package.short, icons, characters))
        for name, code in synonyms(icons, characters, concepts):
            names.setdefault(name, code)
    drawn, rows = [], []
    for style, icons, characters in sets:
        chosen = icons_of(icons, characters, concepts, names)
        one_style = _drawn(icons, chosen, size, style, say)
        for code, pixels in watch(one_style, len(chosen), f"{style} pictures"):
            drawn.append(pixels)
            rows.append((concepts[code], style))
    if not drawn:
        raise ValueError(f"no picture of {len(concepts)} emoji is in {len(sets)} packages")
    groups = _groups([one for one, _ in rows], drawn)
    # A picture that stands for two things is there once, as the first of them.
    first = {pixels.tobytes(): row for row, pixels in reversed(list(enumerate(drawn)))}
    kept = sorted(first.values())
    return Pictures(
        np.stack([drawn[row] for row in kept]),
        np.array([rows[row][0].label for row in kept]),
        np.array([rows[row][0].code for row in kept]),
        groups[kept],
        np.array([rows[row][1] for row in kept]),
    )


def splits(found: Pictures) -> tuple[NDArray[np.bool_], NDArray[np.str_]]:
    """Choose test pictures, of things that no training picture shows, and the unseen artist's.

    Returns:
        Which pictures are test images, bool ``[N]``, and the names of the further test sets,
        ``[N]``, empty where a picture is in none: the unseen artist's pictures of things that the
        training pictures show, and of those that the test pictures do.
    """
    others = found.styles != emoji_packages.UNSEEN_ARTIST
    held: set[str] = set()
    draw_from = np.random.default_rng(_SEED)
    for label in range(len(CLASSES)):
        rows = (found.labels == label) & others
        names, counts = np.unique(found.groups[rows], return_counts=True)
        order = draw_from.permutation(len(names))
        before = np.cumsum(counts[order]) - counts[order]
        held.update(names[order[before < _TEST_SHARE * rows.sum()]])
    new = np.isin(found.groups, sorted(held))
    shift = np.where(others, "", np.where(new, BOTH, ARTIST))
    return new & others, shift


def _drawn(
    icons: Any, chosen: dict[str, str], size: int, style: str, say: Say
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Draw a package's icons; an icon that cannot be drawn, or is blank, is left out, and said."""
    failed = []
    for code, name in chosen.items():
        try:
            pixels = draw(svg_of(icons, name), size)
        except (ValueError, KeyError, TypeError) as error:
            failed.append(f"{name} ({error})")
            continue
        if pixels.min() == pixels.max():
            failed.append(f"{name} (blank)")
            continue
        yield code, pixels
    if failed:
        say(f"{style}: {len(failed)} icons are left out: {'; '.join(failed[:3])}")


def _groups(concepts: Sequence[Concept], drawn: Iterable[NDArray[np.uint8]]) -> NDArray[np.str_]:
    """Name what the split keeps together: things that are drawn alike, down to the last pixel."""
    leader: dict[str, str] = {}

    def first(group: str) -> str:
        while leader.setdefault(group, group) != group:
            group = leader[group]
        return group

    seen: dict[bytes, str] = {}
    for concept, pixels in zip(concepts, drawn, strict=True):
        other = seen.setdefault(pixels.tobytes(), concept.group)
        one, two = sorted((first(concept.group), first(other)))
        leader[two] = one
    return np.array([first(concept.group) for concept in concepts])

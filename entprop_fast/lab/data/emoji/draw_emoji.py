"""Draw icons of the Iconify packages as pixels, by resvg."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entprop_fast.lab.data.emoji.emoji_concepts import Concept, code_of, simple
from entprop_fast.optional import require

BACKGROUND = "#ffffff"

_NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
_OUTSIDE = re.compile(r"<(image|text|foreignobject)\b|href\s*=\s*[\"'](?!#)", re.IGNORECASE)
_DEEPEST = 5  # aliases of aliases


def icons_of(
    icons: Mapping[str, Any],
    characters: Mapping[str, str],
    concepts: Mapping[str, Concept],
    names: Mapping[str, str],
) -> dict[str, str]:
    """Find a package's icon of each concept: code to the icon's name.

    Args:
        icons: the package's ``icons.json``.
        characters: its ``chars.json``: codes to names, empty where it has none.
        concepts: what is looked for.
        names: simple names to codes, for what ``characters`` lacks.
    """
    found: dict[str, str] = {}
    for code, name in characters.items():
        if code_of(code) in concepts:
            found.setdefault(code_of(code), str(name))
    for name in (*icons["icons"], *icons.get("aliases", {})):
        if (known := names.get(simple(name))) is not None:
            found.setdefault(known, name)
    return {code: found[code] for code in concepts if code in found}


def synonyms(
    icons: Mapping[str, Any], characters: Mapping[str, str], concepts: Mapping[str, Concept]
) -> Iterator[tuple[str, str]]:
    """Yield what a package calls the concepts: simple names and codes."""
    codes = {str(name): code_of(code) for code, name in characters.items()}
    for name, code in codes.items():
        if code in concepts:
            yield simple(name), code
    for alias, about in icons.get("aliases", {}).items():
        if (parent := codes.get(about["parent"], "")) in concepts:
            yield simple(alias), parent


def svg_of(icons: Mapping[str, Any], name: str) -> str:
    """Write an icon as an SVG document.

    Raises:
        ValueError: there is no such icon, or it names something outside of itself.
    """
    icon = _icon(icons, name, _DEEPEST)
    body = str(icon["body"])
    if _OUTSIDE.search(body):
        raise ValueError(f"icon {name!r} has texts, images or links to what is not in it")
    left, top, width, height = (
        float(icon.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    middle = f"{left + width / 2:g} {top + height / 2:g}"
    turn = 90 * (int(icon.get("rotate", 0)) % 4)
    flips = f"{-1 if icon.get('hFlip', False) else 1} {-1 if icon.get('vFlip', False) else 1}"
    if turn or flips != "1 1":
        back = f"{-left - width / 2:g} {-top - height / 2:g}"
        moved = f"translate({middle}) rotate({turn}) scale({flips}) translate({back})"
        body = f'<g transform="{moved}">{body}</g>'
    side = max(width, height)  # the icon stands in the middle of a square
    box = f"{left + (width - side) / 2:g} {top + (height - side) / 2:g} {side:g} {side:g}"
    return f'<svg {_NAMESPACES} viewBox="{box}" width="{side:g}" height="{side:g}">{body}</svg>'


def require_renderer() -> None:
    """Raise ``ImportError`` where what draws is not installed."""
    require("PIL", extra="train", purpose="drawing emoji")
    require("resvg_py", extra="emoji", purpose="drawing emoji")


def draw(svg: str, size: int) -> NDArray[np.uint8]:
    """Draw a square SVG document on white: uint8 ``[size, size, 3]``.

    Raises:
        ValueError: it cannot be drawn.
    """
    require_renderer()
    from PIL import Image
    from resvg_py import svg_to_bytes

    made = svg_to_bytes(
        svg_string=svg, width=size, height=size, background=BACKGROUND, skip_system_fonts=True
    )
    pixels = np.asarray(Image.open(io.BytesIO(bytes(made))).convert("RGB"))
    if pixels.shape != (size, size, 3):
        raise ValueError(f"resvg drew {pixels.shape}, not {size} pixels square")
    return pixels


def _icon(icons: Mapping[str, Any], name: str, deepest: int) -> dict[str, Any]:
    """Return an icon with what its package says of all, and what an alias changes of its parent."""
    sizes = {key: icons[key] for key in ("left", "top", "width", "height") if key in icons}
    if name in icons["icons"]:
        own: dict[str, Any] = icons["icons"][name]
        return sizes | own
    about = icons.get("aliases", {}).get(name)
    if about is None or not deepest:
        raise ValueError(f"there is no icon {name!r}")
    parent = _icon(icons, about["parent"], deepest - 1)
    own = {key: value for key, value in about.items() if key != "parent"}
    for flip in ("hFlip", "vFlip"):
        own[flip] = bool(own.get(flip, False)) != bool(parent.get(flip, False))
    own["rotate"] = int(own.get("rotate", 0)) + int(parent.get("rotate", 0))
    return parent | own

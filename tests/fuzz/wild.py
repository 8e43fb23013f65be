"""Values and bytes that nothing expects."""

from __future__ import annotations

import string
from collections.abc import Sequence
from random import Random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 40, 255, 256, 2**31 - 1, 2**31, 2**63, -(2**63) - 1, 10**30, True, False),
    *(0.0, -0.0, 0.5, 1.0, 1e-30, 1e-320, 1e30, 1e38, 1e308, float("nan"), float("inf")),
)
TEXTS: tuple[str, ...] = (
    *("", " ", ".", "..", "/", "~", "-", "--", "none", "None", "auto", "True", "1", "4/255", "1/0"),
    *("a\nb", "a\0b", "a\tb", "\x1b[31mred", "[/]", "[bold]", "a|b", "$x^$", "%s%n", "{0}", "`x`"),
    *("ä", "日本", "\u202e", "\ufeff", "\ud800", "x" * 300, "../../outside", "/etc/passwd", "a b"),
    *("digits", "cifar10", "folder:", "folder:.", "folder:/", "entprop", "vanilla", "mixup"),
    *("wrn10_0.5", "wrn10_", "wrn-2_1", "wrn10_1e9", "wrn600004_1", "wrn10_nan", "resnet0"),
    "timm:test_vit,img_size=8,patch_size=4,checkpoint_path=/etc/passwd",
    "timm:test_vit,pretrained_cfg=/etc/passwd",
    "timm:test_vit,img_size=8,patch_size=3,depth=-1",
    "timm:hf-hub:someone/thing",
    "timm:local-dir:/etc",
    "torchvision:resnet18,weights=DEFAULT",
    "pretrained:../../x",
)


def number(draw: Random) -> Any:
    """A number, most likely none that a setting has."""
    return draw.choice(NUMBERS)


def text(draw: Random, valid: str | None = None) -> str:
    """A string: a valid one, a telling one, or noise."""
    if valid is not None and draw.random() < 0.5:
        return valid
    if draw.random() < 0.7:
        return draw.choice(TEXTS)
    return "".join(draw.choice(string.printable) for _ in range(draw.randrange(1, 12)))


def value(draw: Random, depth: int = 0) -> Any:
    """Anything that JSON and TOML hold."""
    kind = draw.randrange(6 if depth < 3 else 4)
    if kind < 2:
        return number(draw)
    if kind < 4:
        return text(draw)
    if kind == 4:
        return [value(draw, depth + 1) for _ in range(draw.randrange(3))]
    return {text(draw): value(draw, depth + 1) for _ in range(draw.randrange(3))}


def changed(record: Any, draw: Random) -> Any:
    """A copy of nested dicts and lists in which one thing is another, missing or too much."""
    if isinstance(record, dict) and record and draw.random() < 0.9:
        key = draw.choice(sorted(record, key=str))
        copy = dict(record)
        fate = draw.random()
        if fate < 0.15:
            del copy[key]
        elif fate < 0.25:
            copy[text(draw)] = value(draw)
        else:
            copy[key] = changed(copy[key], draw)
        return copy
    if isinstance(record, list) and record and draw.random() < 0.8:
        at = draw.randrange(len(record))
        return [*record[:at], changed(record[at], draw), *record[at + 1 :]]
    return value(draw)


def damaged(content: bytes, draw: Random) -> bytes:
    """The bytes with some bits flipped, cut off, or something put in between."""
    fate, data = draw.random(), bytearray(content)
    if fate < 0.15 or not data:
        return bytes(data[: draw.randrange(len(data) + 1)])
    if fate < 0.25:
        at = draw.randrange(len(data))
        return bytes(data[:at] + draw.randbytes(draw.randrange(1, 40)) + data[at:])
    near = 600 if draw.random() < 0.5 else len(data)  # headers are in front
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        data[draw.randrange(min(near, len(data)))] ^= 1 << draw.randrange(8)
    return bytes(data)


def edited(lines: Sequence[str], draw: Random) -> list[str]:
    """Lines of a text with some changed, dropped, doubled or swapped."""
    found = list(lines)
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(found) + 1)
        fate = draw.randrange(5)
        if fate == 0 or at == len(found):
            found.insert(at, text(draw))
        elif fate == 1:
            found.insert(at, found[at])
        elif fate == 2:
            del found[at]
        elif fate == 3:
            middle = draw.randrange(len(found[at]) + 1)
            found[at] = found[at][:middle] + text(draw) + found[at][middle:]
        else:
            key, equals, _ = found[at].partition("=")
            found[at] = f"{key}{equals or ' '}{value(draw)!r}"
    return found

"""Write settings as a recipe that explains itself: a comment over each, from its option."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w

from entprop_fast.lab.training.config import SETTINGS, Config
from entprop_fast.lab.training.method_settings import settable
from entprop_fast.methods import METHODS
from entprop_fast.options import Bounds, Option

_WIDTH = 98


def commented(config: Config, reasons: Mapping[str, str], *head: str) -> str:
    """Return a recipe of all settings, which reads as `config` again.

    Args:
        config: the settings.
        reasons: by the name of a setting, why it has its value, in a sentence without line breaks.
        head: paragraphs of the first comment.
    """
    groups: dict[str, list[Option]] = {}
    for one in SETTINGS.values():
        if one.name != "method":
            groups.setdefault(one.group, []).append(one)
    blocks = ["\n#\n".join(_comment(paragraph) for paragraph in head)]
    for group, options in groups.items():
        blocks.append(f"# ---- {group} ----")
        blocks += [_entry(one, getattr(config, one.name), reasons) for one in options]
    return "\n\n".join([*blocks, *_method(config, reasons)]) + "\n"


def _method(config: Config, reasons: Mapping[str, str]) -> Iterator[str]:
    about = SETTINGS["method"]
    yield "# ---- method ----"
    known = f"{about.help} One of {', '.join(METHODS)}."
    lines = [_comment(known), *_reason("method", reasons), _line("name", config.method)]
    yield "\n".join(["[method]", *lines])
    yield (
        f"# Options of {config.method}; those of another method go into a table of its name.\n"
        + (f"[method.{config.method}]")
    )
    for name, one in settable(config.method).items():
        yield _entry(one, config.options.get(name), reasons)


def _entry(about: Option, value: Any, reasons: Mapping[str, str]) -> str:
    """Write one setting: what it is, what is valid, why it has this value, and the value."""
    listed = f" One of {', '.join(map(str, about.choices))}." if about.choices else ""
    bounds = f" A number {about.bounds}." if about.bounds != Bounds() else ""
    units = about.type is float and about.unit == "image units" and value is not None
    shown = f" Here {value * 255:.4g}/255." if units else ""
    lines = [_comment(f"{about.help}{listed}{bounds}{shown}"), *_reason(about.name, reasons)]
    if value is None:  # TOML has no word for it
        return "\n".join([*lines, f"# {about.name} ="])
    return "\n".join([*lines, _line(about.name, value)])


def _reason(name: str, reasons: Mapping[str, str]) -> list[str]:
    return [_comment(f"Chosen: {reasons[name]}")] if name in reasons else []


def _line(name: str, value: Any) -> str:
    return tomli_w.dumps({name: value}).rstrip("\n")


def _comment(text: str) -> str:
    lines = textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"# {line}" for line in lines)

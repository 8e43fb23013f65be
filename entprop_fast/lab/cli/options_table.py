"""Write the tables of all options into a page: ``python -m entprop_fast.lab.cli.options_table``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import MISSING
from pathlib import Path

from entprop_fast.augment import AUGMENTATIONS
from entprop_fast.lab.files import write_atomically
from entprop_fast.lab.report.text import markdown_table
from entprop_fast.lab.training.config import SETTINGS
from entprop_fast.methods import METHODS, CommonOptions
from entprop_fast.options import Option, options_of, valid

PAGE = Path("docs/reference/options.md")
BEGIN, END = "<!-- options -->", "<!-- /options -->"


def tables() -> str:
    """Return tables: of the run's settings, of all methods, of each method and augmentation."""
    common = options_of(CommonOptions)
    parts = [
        _part("Settings of a run", "Flags and recipes set them.", SETTINGS.values()),
        _part("Options of every method", "Keywords of `create_method`.", common.values()),
    ]
    for name, method in METHODS.items():
        own = [one for one in options_of(method.Options).values() if one.name not in common]
        parts.append(_part(f"`{name}`", "" if own else "It has those of every method only.", own))
    for name, augmentation in AUGMENTATIONS.items():
        text = f"As in `--augment {name}:option=value`, and keywords of `{augmentation.__name__}`."
        own = [one for one in options_of(augmentation).values() if one.name != "seed"]
        parts.append(_part(f"`{name}`, an augmentation", text, own))
    return "\n\n".join(parts)


def written(page: str) -> str:
    """Return the page with the tables between its markers.

    Raises:
        ValueError: it lacks the markers.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"page: expected the markers {BEGIN} and {END}")
    return f"{before}{begin}\n{tables()}\n{end}{after}"


def main(args: Sequence[str] | None = None) -> int:
    """Write the page that `args` name (`PAGE` without any) and return the exit code."""
    given = sys.argv[1:] if args is None else args
    page = Path(given[0]) if given else PAGE
    write_atomically(page, written(page.read_text()).encode())
    return 0


def _part(title: str, text: str, options: Iterable[Option]) -> str:
    rows = [(one.name, valid(one), _default(one), one.help) for one in options]
    table = markdown_table([("option", "valid", "default", "meaning"), *rows]) if rows else ""
    return "\n\n".join(part for part in (f"## {title}", text, table) if part)


def _default(about: Option) -> str:
    if about.default is MISSING:
        return "must be given"
    if about.unit == "image units" and about.default is not None:
        return f"{about.default * 255:g}/255"
    return str(about.default)


if __name__ == "__main__":
    sys.exit(main())

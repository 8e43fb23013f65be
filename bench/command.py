"""Give commands that measure what they are told one form: names in, rows out as they come."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable, Sequence

from bench import rows


def parser_of(
    module: str, doc: str, what: str, known: Collection[str], usual: Sequence[str] | None = None
) -> argparse.ArgumentParser:
    """Make a parser that takes names, as `names`; another one than the known is an error, exit 2.

    Args:
        module: that is run.
        doc: of it; the first line is shown.
        what: a name is, in capitals.
        known: all names.
        usual: those that are taken where none is given; all without.
    """
    by_default = list(known if usual is None else usual)
    parser = argparse.ArgumentParser(f"python -m {module}", description=doc.splitlines()[0])
    parser.add_argument(
        "names",
        nargs="*",
        type=_one_of(known),
        default=by_default,
        metavar=what,
        help=f"some of {', '.join(known)}; without, {', '.join(by_default)}",
    )
    return parser


def _one_of(known: Collection[str]) -> Callable[[str], str]:
    def check(name: str) -> str:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name}: expected some of {', '.join(known)}")
        return name

    return check


def keep_as_measured(name: str, measured: Iterable[tuple[Iterable[rows.Row], str]]) -> None:
    """Add rows to the part called `name` while they are measured; say where they are.

    Args:
        name: of the rows.
        measured: some rows at a time, and what to print once these are there.
    """
    rows.begin(name)
    for found, said in measured:
        rows.add(name, found)
        print(said, flush=True)
    print(f"rows: {rows.part(name)}")

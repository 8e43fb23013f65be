"""End a run of benchmarks: print its table, name what was missed, and keep the rows."""

from collections.abc import Callable, Sequence

import pytest

from bench import rows


def summarise(
    reporter: pytest.TerminalReporter,
    name: str,
    found: Sequence[rows.Row],
    table: str,
    missed: Callable[[rows.Row], str],
    *,
    whole: bool,
    by: Sequence[str] = (),
) -> None:
    """Print what was measured; write it if it is everything.

    Args:
        reporter: of pytest.
        name: of the rows.
        found: the rows.
        table: of all of them.
        missed: says a row whose verdict is bad.
        whole: nothing was left out.
        by: what tells rows apart, see `bench.rows.keep`.
    """
    reporter.write_line(table)
    for row in found:
        if row["verdict"] in ("missed", "slower"):
            reporter.write_line(f"{row['verdict']}: {missed(row)}")
    reporter.write_line(rows.keep(name, found, whole=whole, by=by))

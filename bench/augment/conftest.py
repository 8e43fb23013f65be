"""Print the table at the end of the run, and write its rows as JSON lines."""

import pytest

from bench.augment.table import KEY, MEASURED, NAME, is_whole, rows_of, table_of
from bench.rows import Row
from bench.summary import summarise


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured; write it if it is everything."""
    if MEASURED:
        found = rows_of(MEASURED)
        table = table_of(found)
        summarise(terminalreporter, NAME, found, table, _said, whole=is_whole(), by=KEY)


def _said(row: Row) -> str:
    return f"{row['augmentation']} at {row['side']} px, {row['ratio']:.1f} times {row['peer']}"

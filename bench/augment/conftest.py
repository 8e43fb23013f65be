"""Print the table at the end of the run, and write its rows as JSON lines."""

import pytest

from bench import rows
from bench.augment.table import MEASURED, NAME, is_whole, rows_of, table_of


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured; write it if it is everything."""
    if not MEASURED:
        return
    found = rows_of(MEASURED)
    terminalreporter.write_line(table_of(found))
    for row in found:
        if row["verdict"] in ("missed", "slower"):
            terminalreporter.write_line(
                f"{row['verdict']}: {row['augmentation']} at {row['side']} px, {row['ratio']:.1f} "
                f"times {row['peer']}"
            )
    terminalreporter.write_line(rows.keep(NAME, found, whole=is_whole()))

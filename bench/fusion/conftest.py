"""Print the table at the end of the run, and write its rows if they are all."""

import pytest

from bench import rows
from bench.fusion.table import MEASURED, is_whole, name_of, table_of


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print and write what was measured."""
    if not MEASURED:
        return
    terminalreporter.write_line(table_of(MEASURED))
    name = name_of(MEASURED[0]["device"])
    terminalreporter.write_line(rows.keep(name, MEASURED, whole=is_whole()))

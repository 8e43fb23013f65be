"""Print the table of steps at the end of the run, and write its rows as JSON lines."""

import pytest

from bench import rows
from bench.step.cases import settings
from bench.step.results import Row, verdicts
from bench.step.table import groups, name_of, table_of, told

MEASURED: list[Row] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print and write what was measured."""
    if not MEASURED:
        return
    write = terminalreporter.write_line
    as_json = [row.as_json() for row in MEASURED]
    for group in groups(as_json):
        write(f"\n{table_of(group, aligned=True)}\n")
    device = MEASURED[0].setting.device
    for verdict in verdicts(device, as_json):
        write(f"{told(verdict)}: {verdict}")
    whole = {row.setting for row in MEASURED} == set(settings(device))
    write(rows.keep(name_of(device), as_json, whole=whole))

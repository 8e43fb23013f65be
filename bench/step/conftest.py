"""Print the table of steps at the end of the run, and write its rows as JSON lines."""

import pytest

from bench import rows
from bench.step.cases import settings
from bench.step.results import Row
from bench.step.table import groups, headline, name_of, table_of
from bench.step.targets import told, verdicts

MEASURED: list[Row] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print and write what was measured."""
    if not MEASURED:
        return
    write = terminalreporter.write_line
    as_json = [row.as_json() for row in MEASURED]
    for group in groups(as_json):
        write(f"\n{table_of(group, aligned=True)}\n")
    device, stamped = MEASURED[0].setting.device, [row | rows.stamp() for row in as_json]
    if device == "cuda":
        write(headline(stamped))
    for verdict in verdicts(device, stamped):
        write(f"{told(verdict)}: {verdict}")
    whole = {row.setting for row in MEASURED} == set(settings(device))
    write(rows.keep(name_of(device), as_json, whole=whole))

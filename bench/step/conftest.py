"""Print the table of steps at the end of the run, and write its rows as JSON lines."""

import pytest

from bench import rows
from bench.step.cases import settings
from bench.step.results import Row, paper_cost, verdicts
from bench.step.table import name_of, told

MEASURED: list[Row] = []
HEADER = f"{'contender':38} {'ms':>9} {'images/s':>9} {'vanilla':>8} {'MiB':>7} {'launches':>8}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print and write what was measured."""
    if not MEASURED:
        return
    write = terminalreporter.write_line
    setting = None
    for row in MEASURED:
        if row.setting != setting:
            setting = row.setting
            write(f"\n{setting}; the paper prints {paper_cost(setting):.2g} plain steps")
            write(HEADER)
        write(_line(row))
    as_json = [row.as_json() for row in MEASURED]
    write("\nvanilla: time in steps of vanilla eager (contiguous, PyTorch's defaults)")
    device = MEASURED[0].setting.device
    for verdict in verdicts(device, as_json):
        write(f"{told(verdict)}: {verdict}")
    if {row.setting for row in MEASURED} == set(settings(device)):
        write(f"rows: {rows.write(name_of(device), as_json)}")
    else:
        write(f"not every setting was measured; those that were: {rows.part(name_of(device))}")


def _line(row: Row) -> str:
    if row.seconds is None:
        return f"{row.contender:38} no time: {row.refused}"
    cost = next(iter(row.costs.values()), float("nan"))
    images = row.setting.batch / row.seconds
    memory = (row.peak_memory or 0) >> 20
    launches = "" if row.launches is None else str(row.launches)
    return (
        f"{row.contender:38} {row.seconds * 1e3:9.1f} {images:9.0f} {cost:8.2f} "
        f"{memory:7d} {launches:>8}"
    )

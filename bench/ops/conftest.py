"""Print the table at the end of the run, and write its rows as JSON lines."""

import pytest

from bench import rows
from bench.ops import targets
from bench.ops.table import MEASURED, is_whole, name_of, row_of, table
from bench.ops.timers import copy_bandwidth
from entprop_fast.lab.report.text import markdown_table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured; write it if it is all of a device's cases."""
    write = terminalreporter.write_line
    for device, measured in MEASURED.items():
        bandwidth = copy_bandwidth(device)
        results = [row_of(one, bandwidth) for one in measured]
        write(f"\n{device}: ratio of medians, eager over ours; copy {bandwidth / 1e9:.1f} GB/s")
        write(markdown_table(table(results), aligned=True))
        if device == "cuda":
            write(targets.table(results))
        write(rows.keep(name_of(device), results, whole=is_whole(device)))

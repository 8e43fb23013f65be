"""Give a recipe's step the machine's cores; print the table at the end of the run."""

import os
from collections.abc import Iterator

import pytest
import torch

from bench import rows
from bench.recipes.table import MEASURED, is_whole, name_of, table_of


@pytest.fixture(autouse=True)
def every_core(one_thread: None) -> Iterator[None]:
    """Take all cores, where other benchmarks take one; the rows say how many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    torch.set_num_threads(cores or 1)
    rows.stamp()  # asked once for all
    yield
    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured; write it if it is everything."""
    if not MEASURED:
        return
    terminalreporter.write_line(table_of(MEASURED))
    name = name_of(MEASURED[0]["device"])
    terminalreporter.write_line(rows.keep(name, MEASURED, whole=is_whole()))

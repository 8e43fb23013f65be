"""Set what every benchmark is timed under."""

import os
from collections.abc import Iterator

import pytest
import torch

from bench import rows


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """End a GPU campaign's command where no device is: it would measure the CPU for minutes."""
    campaign = os.environ.get(rows.JOURNAL)
    if campaign and not torch.cuda.is_available() and not session.testsfailed:
        pytest.exit("no CUDA device: torch.cuda.is_available() is False", returncode=1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Time with one thread, as the CPU's tables say."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

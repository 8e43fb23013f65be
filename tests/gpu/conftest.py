"""The kernels on a CUDA device: the value cases again, and what only a GPU shows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here `gpu`; without a device it is skipped, saying so."""
    absent = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(absent)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """An element left unwritten shows as NaN or the largest integer."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)

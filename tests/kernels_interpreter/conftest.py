"""Triton kernels on CPU tensors. Runs as a pytest process of its own under TRITON_INTERPRET=1."""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def interpreter() -> None:
    """The variable is read while `@jit` decorates: it cannot be set once kernels are imported."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip(
            "needs a process of its own: TRITON_INTERPRET=1 pytest tests/kernels_interpreter"
        )


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """`torch.empty` returns NaN and the largest integer: an element left unwritten shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)

"""Triton kernels on CPU tensors. Runs as a pytest process of its own under TRITON_INTERPRET=1."""

import os
from pathlib import Path

import pytest

from tests.kernel_cases.memory import poisoned_memory  # noqa: F401

HERE = Path(__file__).parent
# Of the interpreter, not of the kernels: NumPy reports what a GPU computes in silence, NaN that
# the cases feed in and the empty lanes that a mask then drops (first two); and Triton 3.6 reads
# loop bounds from arrays of one element (the third, an error from NumPy 2.4 on).
INTERPRETER_WARNINGS = (
    "ignore:invalid value encountered:RuntimeWarning:triton.runtime.interpreter",
    "ignore:divide by zero encountered:RuntimeWarning:triton.runtime.interpreter",
    "ignore:Conversion of an array with ndim > 0:DeprecationWarning:triton.runtime.interpreter",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave those out of the summary, where they would hide a warning of our own."""
    for item in items:
        if HERE in item.path.parents:
            for warning in INTERPRETER_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def interpreter() -> None:
    """Skip without the variable, which `@jit` reads while it decorates."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip(
            "needs a process of its own: TRITON_INTERPRET=1 pytest tests/kernels_interpreter"
        )

"""Ahead-of-time compilation. Runs as a pytest process of its own, without TRITON_INTERPRET."""

import os

import pytest


@pytest.fixture(autouse=True)
def compiler() -> None:
    """Skip: an interpreted kernel has no machine code."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("needs a process of its own, without TRITON_INTERPRET=1")

"""The library that a child of a test loads before torch."""

import pytest

from bench.fake_cuda.device import SOURCE, library
from csrc.toolchain import Unavailable


def library_or_skip() -> str:
    """Where bench/fake_cuda's library lies; the test is skipped where there is none."""
    try:
        path = library()
    except Unavailable as missing:
        pytest.skip(f"{SOURCE.name} cannot be compiled: {missing}")
    if path is None:
        pytest.skip("this torch is built for GPUs and has hooks of its own")
    return str(path)

"""What every test and benchmark runs under: seeds, one thread, GPU skips, a usable torchvision."""

from __future__ import annotations

import contextlib
import random
import warnings

import hypothesis
import numpy as np
import pytest
import torch

from entprop_fast.optional import load_torchvision

hypothesis.settings.register_profile(
    "entprop_fast", deadline=None, derandomize=True, max_examples=50, print_blob=True
)
hypothesis.settings.load_profile("entprop_fast")


with contextlib.suppress(ImportError), warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # tests import it without asking the package
    load_torchvision(purpose="a test")
# One thread: results that do not depend on the machine's cores, and no fight between xdist workers.
torch.set_num_threads(1)


# Files of a quarter of a minute and more, which begin before the others: of two workers, neither is
# to find one of them last.
LONG = (
    "tests/ops/test_mutants.py",
    "tests/lab/job/",
    "tests/lab/experiments/",
    "tests/parallel/",
    "tests/fake_cuda/",
    "tests/test_csrc_build.py",
    "tests/test_packaging.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first; skip tests marked ``gpu`` where there is no CUDA device."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device; torch.cuda.is_available() is False")
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _seed_everything() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def plain_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference backend: every op is plain PyTorch, so that bits can be compared with torch."""
    from entprop_fast.ops import backend

    monkeypatch.setattr(backend, "KERNEL_DEVICES", set())

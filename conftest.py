"""What every test and benchmark runs under: seeds, one thread, GPU skips, a usable torchvision."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

# Libraries that torchvision keeps alive for its whole life; a Library's ops go when it does.
_TORCHVISION_LIBRARIES: list[torch.library.Library] = []
# The two ops whose absence stops `import torchvision`, as its C++ declares them.
_TORCHVISION_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

hypothesis.settings.register_profile(
    "entprop_fast", deadline=None, derandomize=True, max_examples=50, print_blob=True
)
hypothesis.settings.load_profile("entprop_fast")


def declare_torchvision_ops() -> None:
    """Make torchvision importable where its compiled ops cannot be loaded.

    PyPI's torchvision is built for CUDA; beside a CPU build of torch its library does not load, and
    its import then fails on the fakes of ops that nobody declared. Declared without a kernel, they
    let everything else work; calling one is still an error.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)
        except OSError:
            continue
    declared = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _TORCHVISION_SCHEMAS:
        if not hasattr(torch.ops.torchvision, schema.partition("(")[0]):
            declared.define(schema)
    _TORCHVISION_LIBRARIES.append(declared)


declare_torchvision_ops()
# One thread: results that do not depend on the machine's cores, and no fight between xdist workers.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is no CUDA device."""
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

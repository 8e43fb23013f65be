"""Backends as a parameter: every test of values runs on each, through the same schema."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

import entprop_fast.ops  # noqa: F401 - defines the ops
from entprop_fast.ops import backend as backends

NAMES = (
    "dual_batch_norm",
    "dual_batch_norm_backward",
    "loss_and_entropy",
    "select_topk",
    "gather_perturb",
    "perturb_",
)
needs_extension = pytest.mark.skipif(
    "cpu" not in backends.KERNEL_DEVICES, reason="the C++ kernels are not built"
)


@pytest.fixture(params=[pytest.param("cpp", marks=needs_extension), "reference"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the backend under test; the public functions use it too."""
    if request.param == "reference":
        monkeypatch.setattr(backends, "KERNEL_DEVICES", set())
    return str(request.param)


@pytest.fixture
def ops(backend: str) -> SimpleNamespace:
    """The backend's ops by name, below autograd."""
    suffix = "_reference" if backend == "reference" else ""
    packets = {name: getattr(torch.ops.entprop_fast, name + suffix) for name in NAMES}
    found = {name: packet.default for name, packet in packets.items()}
    return SimpleNamespace(gather_perturb_out=packets["gather_perturb"].out, **found)


@pytest.fixture(autouse=True)
def poisoned_outputs() -> Iterator[None]:
    """Fresh tensors start as NaN (integers as their maximum), so an unwritten element shows."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)

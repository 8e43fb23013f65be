"""Backends as a parameter: every test of values runs on each, through the same schema."""

import ctypes
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
M_PERTURB = -6  # of glibc's malloc.h
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
    """Fresh memory is full of garbage, so that an element nobody wrote shows.

    PyTorch's own filling does not reach what C++ allocates; the C library's does: every byte 0xfe,
    -1.7e38 as float32.
    """
    libc = ctypes.CDLL(None)
    torch.use_deterministic_algorithms(True)
    libc.mallopt(M_PERTURB, 0x01)
    yield
    libc.mallopt(M_PERTURB, 0)
    torch.use_deterministic_algorithms(False)

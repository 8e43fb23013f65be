"""Backends as a parameter: every test of values runs on each, through the same schema.

On `cuda`, marked gpu, every tensor that a test makes is on the GPU: it is the default device.
"""

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import entprop_fast.ops  # noqa: F401 - defines the ops
from entprop_fast.ops import backend as backends
from tests.kernel_cases.dual_batch_norm import batch_norm_chain

NAMES = (
    "dual_batch_norm",
    "dual_batch_norm_backward",
    "dual_batch_norm_moments",
    "dual_batch_norm_merge",
    "dual_batch_norm_dx",
    "loss_and_entropy",
    "select_topk",
    "gather_perturb",
    "perturb_",
    "image_chains",
    "pixmix_rounds",
    "prime_chains",
)
M_PERTURB = -6  # of glibc's malloc.h
needs_extension = pytest.mark.skipif(
    "cpu" not in backends.KERNEL_DEVICES, reason="the C++ kernels are not built"
)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the device of every tensor made without naming one."""
    with torch.device(request.param):
        yield request.param


@pytest.fixture(
    params=[
        pytest.param("cpp", marks=needs_extension),
        "reference",
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of the backend under test; the public functions use it too."""
    if request.param == "reference":
        monkeypatch.setattr(backends, "KERNEL_DEVICES", set())
    with torch.device("cuda" if request.param == "cuda" else "cpu"):
        yield request.param


def _batch_norm_in_float32(x: Tensor, *arguments: Any) -> Tensor:
    chain = batch_norm_chain if x.dtype == torch.float32 else F.batch_norm
    result: Tensor = chain(x, *arguments)
    return result


@pytest.fixture
def ops(backend: str) -> SimpleNamespace:
    """Return the backend's ops, below autograd; `batch_norms` are PyTorch's, to compare with.

    On the CPU `F.batch_norm` adds float32 in float64, as our C++ does. Our GPU kernels do not, so
    that they are held to the worse of it and of PyTorch's elementary operations.
    """
    suffix = "_reference" if backend == "reference" else ""
    packets = {name: getattr(torch.ops.entprop_fast, name + suffix) for name in NAMES}
    found = {name: packet.default for name, packet in packets.items()}
    elementary = (_batch_norm_in_float32,) if backend == "cuda" else ()
    return SimpleNamespace(
        gather_perturb_out=packets["gather_perturb"].out,
        batch_norms=(F.batch_norm, *elementary),
        **found,
    )


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

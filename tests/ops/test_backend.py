"""Which backend runs: the variable, and the way from a Triton launcher to the reference."""

import os
import re
import subprocess
import sys

import pytest
import torch

from entprop_fast import build_info
from entprop_fast.ops import backend
from entprop_fast.ops.library import NAMESPACE
from entprop_fast.ops.triton import launcher_of


def test_reference_is_a_choice() -> None:
    code = "from entprop_fast.ops import backend; print(sorted(backend.KERNEL_DEVICES))"
    environment = os.environ | {"ENTPROP_BACKEND": "reference"}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment) == b"[]\n"


def test_unknown_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENTPROP_BACKEND", "fast")
    with pytest.raises(ValueError, match=r"^ENTPROP_BACKEND='fast'"):
        backend._choice()


def test_what_triton_does_not_cover_goes_to_the_reference() -> None:
    score = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    launch = launcher_of("select_topk")
    assert launch(score, 2).tolist() == [1, 2]


def test_triton_serves_cuda() -> None:
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert all(has_kernel(f"{NAMESPACE}::{name}", "CUDA") for name in backend.TRITON_OPS)


@pytest.mark.parametrize(
    ("choice", "serving", "device", "reason"),
    [
        ("auto", {"cpu", "cuda"}, "cpu", None),
        ("reference", set(), "cpu", "every op .*: ENTPROP_BACKEND=reference$"),
        (
            "auto",
            {"cpu"},
            "cuda",
            "^(every op|dual_batch_norm, .*) in .*: Triton is not installed$",
        ),
        ("auto", {"cpu"}, "mps", "every op .*: there are no kernels for the device 'mps'$"),
        pytest.param(
            *("auto", {"cuda"}, "cuda", r"^gather_perturb, perturb_ in .* built without cuda$"),
            marks=pytest.mark.skipif("cuda" in build_info().backends, reason="built with nvcc"),
        ),
    ],
)
def test_why_ops_run_through_the_reference(
    choice: str,
    serving: set[str],
    device: str,
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "cpu" not in build_info().backends:
        pytest.skip("the C++ kernels are not built")
    monkeypatch.setattr(backend, "BACKEND", choice)
    monkeypatch.setattr(backend, "KERNEL_DEVICES", serving)
    said = backend.why_reference(device)
    assert said is None if reason is None else re.search(reason, said or "")

"""csrc/cuda as setup.py compiles it, loaded beside a torch that may have no CUDA."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csrc import build, toolchain

# Of libtorch_cuda, which a CPU build of torch lacks; no test here comes so far as to call it.
ABSENT = """
extern "C" int aoti_torch_get_current_cuda_stream(int, void**) { return 1; }
"""
# Handed CPU tensors, the CUDA kernels find nothing that they cover.
USE = """
import sys, torch, entprop_fast.ops
torch.ops.load_library(sys.argv[1])
ops = torch.ops.entprop_fast
cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
for name in ("gather_perturb", "gather_perturb.out", "perturb_"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"entprop_fast::{name}", "CUDA"), name
x, grad, index = torch.rand(4, 3, 5, 5), torch.randn(4, 3, 5, 5), torch.tensor([3, 1])
bounds = [torch.full((3,), value) for value in (0.1, 0.2, 0.0, 1.0)]
expected = ops.gather_perturb_reference.default(x, grad, index, *bounds)
gathered = ops.gather_perturb.default.redispatch(cuda, x, grad, index, *bounds)
assert torch.equal(gathered, expected)
out = torch.full_like(expected, torch.nan)
ops.gather_perturb.out.redispatch(cuda, x, grad, index, *bounds, out=out)
assert torch.equal(out, expected)
ops.perturb__reference.default(expected, grad[:2], x, index, *bounds)
ops.perturb_.default.redispatch(cuda, out, grad[:2], x, index, *bounds)
assert torch.equal(out, expected)

# FOUND S3, W8: what does not fit is refused before a kernel sees it.
from tests.ops import fuzz
for n in range(300):
    name = ("gather_perturb", "gather_perturb.out", "perturb_")[n % 3]
    case = f"{name}/cuda.{n}"
    given, again = fuzz.arguments_of(name, case), fuzz.arguments_of(name, case)
    found = fuzz.outcome(lambda *a, **k: fuzz.overload(name).redispatch(cuda, *a, **k), given)
    expected = fuzz.outcome(fuzz.overload(name, "_reference"), again)
    if isinstance(expected, ValueError):
        assert type(found) is ValueError and fuzz.named(found) == fuzz.named(expected), case
"""


@pytest.fixture(scope="module")
def tools() -> toolchain.Toolchain:
    """setup.py's compilers on a machine that has nvcc, for the torch that is installed."""
    try:
        cxx = toolchain.find_cxx()
        root, version, torch_cuda = toolchain.find_torch()
        cuda = toolchain.find_cuda(version, torch_cuda or "13.0", cxx)
    except toolchain.Unavailable as missing:
        pytest.skip(str(missing))
    return toolchain.Toolchain(cxx, root, version, cuda, None)


def test_the_binding_registers_and_hands_on(tools: toolchain.Toolchain, tmp_path: Path) -> None:
    (tmp_path / "cuda").mkdir()
    absent = tmp_path / "cuda" / "absent.cpp"
    absent.write_text(ABSENT)
    objects = []
    for source in (*sorted((build.CSRC / "cuda").glob("*.c*")), absent):
        objects.append(tmp_path / f"{source.name}.o")
        command = build.compile_command(source, objects[-1], tools)
        subprocess.run([*command, "-Xcompiler=-Wall,-Werror"], check=True)
    library = tmp_path / "cuda_only.so"
    subprocess.run(
        [word for word in build.link_command(objects, library, tools) if word != "-ltorch_cuda"],
        check=True,
    )
    environment = os.environ | {"ENTPROP_BACKEND": "reference"}  # nothing else for CUDA is loaded
    subprocess.run(
        [sys.executable, "-c", USE, str(library)], check=True, env=environment, cwd=build.ROOT
    )

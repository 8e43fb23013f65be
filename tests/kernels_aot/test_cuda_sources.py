"""csrc/cuda: values on the CPU, machine code by nvcc, the binding compiled to an object."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.cpp_extension import include_paths

from tests.kernel_cases.perturb import CASES
from tests.kernels_aot.compiled import cuobjdump
from tests.kernels_aot.cuda_on_host import SOURCE, build

NVCC = shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="no nvcc on PATH")
KERNEL = (SOURCE / "perturb.cu").read_text()
MUTANTS = {
    "sign": ("int(grad > A(0)) - int(grad < A(0))", "int(grad >= A(0)) - int(grad < A(0))"),
    "radius": ("clamp(moved + alpha * sign, -eps, eps)", "clamp(moved + alpha * sign, -eps, lo)"),
    "range": ("return v <= hi ?", "return v < v + hi ?"),
    "start": ("x + from * per_row", "x + row * per_row"),
    "negative row": ("given < 0 ? given + images.available : given", "given"),
    "gradient row": ("Onward ? row : from;", "from;"),
    "moved": ("A(result.values[i]) - start", "A(0)"),
    "channel": ("channel + 1 == channels ? 0 : channel + 1", "channel"),
    "plane": ("++pixel == pixels", "pixel == pixels"),
    "tail": ("packs + kThreads - 1", "packs"),
    "nan": ("(v != v ? v : lo)", "lo"),
}


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """An element left unwritten shows as NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The kernels, run on the CPU."""
    return build(KERNEL, tmp_path_factory.mktemp("host"))


@needs_nvcc
@pytest.mark.parametrize("case", CASES)
def test_values(case: str, on_host: SimpleNamespace) -> None:
    CASES[case](on_host, "cpu")


@needs_nvcc
def test_a_row_outside_becomes_nan(on_host: SimpleNamespace) -> None:
    x = torch.rand(3, 2, 4, 4)
    bounds = [torch.full((2,), value) for value in (0.1, 0.1, 0.0, 1.0)]
    for bad in (-4, 3, 2**40):
        out = on_host.gather_perturb(x, x, torch.tensor([1, bad]), *bounds)
        assert out[1].isnan().all() and not out[0].isnan().any()


@needs_nvcc
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_copy_is_caught(mutant: str, tmp_path: Path) -> None:
    right, wrong = MUTANTS[mutant]
    assert right in KERNEL
    broken = build(KERNEL.replace(right, wrong), tmp_path)
    with pytest.raises(AssertionError):
        for check in CASES.values():
            check(broken, "cpu")


@needs_nvcc
def test_kernels_compile_lean_for_every_architecture(tmp_path: Path) -> None:
    compiled = tmp_path / "perturb.cubin"
    for arch in (80, 90, 100):
        subprocess.run(
            [str(NVCC), "-std=c++17", "-O3", f"-arch=sm_{arch}", "-cubin",
             str(SOURCE / "perturb.cu"), "-o", str(compiled)],
            check=True, capture_output=True,
        )  # fmt: skip
        usage = cuobjdump("-res-usage", str(compiled))
        kernels = re.findall(r"STACK:(\d+).* LOCAL:(\d+)", usage)
        assert len(kernels) == 40  # 4 types x 2 ops x (2 accesses x 2 layouts + across planes)
        assert set(kernels) == {("0", "0")}
        sass = cuobjdump("-sass", str(compiled))
        assert not re.search(r"\b(LDL|STL)\b", sass)
        for function in re.split(r"Function : ", sass)[1:]:
            name = function.split()[0]
            wide = not re.search(r"perturb_rowsI\w+?Li1E", name)
            assert (function.count("LDG.E.128") + function.count("STG.E.128") > 0) == wide, name


@needs_nvcc
def test_ptx_for_later_architectures(tmp_path: Path) -> None:
    ptx = tmp_path / "perturb.ptx"
    subprocess.run(
        [str(NVCC), "-std=c++17", "-O3", "-arch=compute_100", "-ptx", str(SOURCE / "perturb.cu"),
         "-o", str(ptx)],
        check=True, capture_output=True,
    )  # fmt: skip
    assert ".target sm_100" in ptx.read_text()


@needs_nvcc
def test_binding_compiles_for_torch_2_11(tmp_path: Path) -> None:
    subprocess.run(
        [str(NVCC), "-x", "c++", "-std=c++20", "-Xcompiler=-fPIC,-Wall,-Werror", "-DUSE_CUDA",
         "-DTORCH_TARGET_VERSION=0x020b000000000000",
         *(f"-isystem={path}" for path in include_paths()),
         "-c", str(SOURCE / "binding.cpp"), "-o", str(tmp_path / "binding.o")],
        check=True, capture_output=True,
    )  # fmt: skip

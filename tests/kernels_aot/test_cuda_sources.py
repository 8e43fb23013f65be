"""csrc/cuda/perturb.cu: its values on the CPU, its machine code by nvcc."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.kernel_cases.memory import poisoned_memory  # noqa: F401
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
    "plane width": ("wide && images.pixels % kWide == 0", "wide"),
    "index": ("row * rows.stride", "row"),
    "nan": ("(v != v ? v : lo)", "lo"),
}


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Compile the kernels to run on the CPU."""
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
@pytest.mark.parametrize("arch", [80, 90, 100])
def test_kernels_compile_lean_and_move_sixteen_bytes(arch: int, tmp_path: Path) -> None:
    compiled = tmp_path / "perturb.cubin"
    subprocess.run(
        [str(NVCC), "-std=c++20", "-O3", f"-arch=sm_{arch}", "-cubin", str(SOURCE / "perturb.cu"),
         "-o", str(compiled)],
        check=True, capture_output=True,
    )  # fmt: skip
    usage = re.findall(
        r"REG:(\d+) STACK:(\d+).* LOCAL:(\d+)", cuobjdump("-res-usage", str(compiled))
    )
    assert len(usage) == 40  # 4 types x 2 ops x (2 accesses x 2 layouts + across planes)
    assert {(stack, local) for _, stack, local in usage} == {("0", "0")}
    assert max(int(registers) for registers, _, _ in usage) <= 64  # 4 blocks a multiprocessor
    sass = cuobjdump("-sass", str(compiled))
    assert not re.search(r"\b(LDL|STL)\b", sass)
    for function in re.split(r"Function : ", sass)[1:]:
        name = function.split()[0]
        kind = re.search(r"perturb_rowsI\w+?Li(\d+)EL\w+?ELb([01])E", name)
        assert kind is not None, name
        wide, onward = kind[1] != "1", kind[2] == "1"
        # x, the gradient and, in place, x_adv; stored where the index is good and where it is not.
        loads, stores = (2 + onward, 2) if wide else (0, 0)
        assert len(re.findall(r"\bLDG\.E\.128", function)) == loads, name
        assert len(re.findall(r"\bSTG\.E\.128", function)) == stores, name


@needs_nvcc
def test_ptx_for_later_architectures(tmp_path: Path) -> None:
    ptx = tmp_path / "perturb.ptx"
    subprocess.run(
        [str(NVCC), "-std=c++20", "-O3", "-arch=compute_100", "-ptx", str(SOURCE / "perturb.cu"),
         "-o", str(ptx)],
        check=True, capture_output=True,
    )  # fmt: skip
    assert ".target sm_100" in ptx.read_text()

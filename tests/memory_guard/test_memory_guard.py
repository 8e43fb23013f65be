"""Nothing is read or written beyond a tensor: tests of values and raw ops again, under guard.cpp.

In processes of their own, since what allocates memory has to be there before torch is.
"""

import sys
from pathlib import Path

import pytest

from csrc.toolchain import shared_library
from entprop_fast import build_info
from tests.children import Ran, printed, run_python, toolchain_for

HERE = Path(__file__).parent
OPS = ("conv3x3", "dual_batch_norm", "loss_and_entropy", "perturb", "select_topk")
KERNELS = [f"tests/ops/test_{op}.py" for op in OPS]
# Every kernel, dtype and layout on odd sizes; training networks by name, in PyTorch's convolutions.
RUNS = {
    "kernels": [*KERNELS, "-k", "cpp and (test_values or any_values or any_scores or strides)"],
    "networks": ["tests/models/test_strided.py", "-k", "no_step"],
}
# FOUND S3, W8: raw ops with random and spoiled sizes, dtypes, strides, devices and overlaps.
FUZZ = ("-W", "ignore", "-m", "tests.ops.fuzz", "--cases", "180", "--last")
BEYOND = """
import ctypes, torch
for _ in range(2):  # the first one's pages were given back
    numbers = torch.zeros({numbers}, dtype=torch.uint8)
    ctypes.memset(numbers.data_ptr(), 0, {numbers})
print("within", flush=True)
ctypes.memset(numbers.data_ptr() + {offset}, 0, 1)
"""


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """guard.cpp, compiled."""
    if sys.platform != "linux":
        pytest.skip("LD_PRELOAD and glibc's allocator are Linux's")
    source = HERE / "guard.cpp"
    folder = tmp_path_factory.mktemp("memory_guard")
    return shared_library(source, folder, toolchain_for(source), "-ldl")


def run(guard: Path, side: str, *arguments: str, **variables: str) -> Ran:
    """Python under the guard."""
    environment = {"LD_PRELOAD": str(guard), "ENTPROP_GUARD": side, "OMP_NUM_THREADS": "2"}
    return run_python(*arguments, **environment, **variables)


def usable_sets() -> list[str]:
    """The instruction sets that were built and that this processor has."""
    info = build_info()
    built = ("portable", *info.instruction_sets)
    return list(built[: built.index(info.instruction_set) + 1]) if info.instruction_set else []


@pytest.mark.parametrize("side", ["after", "before"])
@pytest.mark.parametrize("name", RUNS)
def test_nothing_beyond_a_tensor_is_touched(name: str, side: str, guard: Path) -> None:
    plain = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")
    assert " passed" in printed(run(guard, side, "-m", "pytest", *plain, *RUNS[name]))


@pytest.mark.parametrize(
    ("instruction_set", "side"),
    [("portable", "after"), ("avx2", "after"), ("avx512", "after"), ("avx512", "before")],
)
def test_raw_ops_with_any_arguments(instruction_set: str, side: str, guard: Path) -> None:
    """FOUND S3: whatever they are called with, they refuse it or stay within its memory."""
    if instruction_set not in usable_sets():
        pytest.skip(f"no {instruction_set} kernels here")
    ran = run(guard, side, *FUZZ, ENTPROP_CPU_KERNELS=instruction_set)
    assert "180 cases, 0 failed" in printed(ran)


@pytest.mark.parametrize(("side", "offset"), [("after", 192), ("before", -1)])
def test_the_guard_sees_one_byte(side: str, offset: int, guard: Path) -> None:
    ran = run(guard, side, "-c", BEYOND.format(numbers=192, offset=offset))
    assert ran.stdout == "within\n" and ran.returncode < 0, ran.stderr

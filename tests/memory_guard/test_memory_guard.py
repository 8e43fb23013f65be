"""Nothing is read or written beyond a tensor: the tests of values again, under guard.cpp.

In processes of their own, since what allocates memory has to be there before torch is.
"""

import sys
from pathlib import Path

import pytest

from tests.children import Ran, printed, run_python, shared_library, toolchain_for

HERE = Path(__file__).parent
OPS = ("conv3x3", "dual_batch_norm", "loss_and_entropy", "perturb", "select_topk")
KERNELS = [f"tests/ops/test_{op}.py" for op in OPS]
# Every kernel, dtype and layout on odd sizes; training networks by name, in PyTorch's convolutions.
RUNS = {
    "kernels": [*KERNELS, "-k", "cpp and (test_values or any_values or any_scores or strides)"],
    "networks": ["tests/models/test_strided.py", "-k", "no_step"],
}
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


def run(guard: Path, side: str, *arguments: str) -> Ran:
    """Python under the guard."""
    environment = {"LD_PRELOAD": str(guard), "ENTPROP_GUARD": side, "OMP_NUM_THREADS": "2"}
    return run_python(*arguments, **environment)


@pytest.mark.parametrize("side", ["after", "before"])
@pytest.mark.parametrize("name", RUNS)
def test_nothing_beyond_a_tensor_is_touched(name: str, side: str, guard: Path) -> None:
    plain = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist")
    assert " passed" in printed(run(guard, side, "-m", "pytest", *plain, *RUNS[name]))


@pytest.mark.parametrize(("side", "offset"), [("after", 192), ("before", -1)])
def test_the_guard_sees_one_byte(side: str, offset: int, guard: Path) -> None:
    ran = run(guard, side, "-c", BEYOND.format(numbers=192, offset=offset))
    assert ran.stdout == "within\n" and ran.returncode < 0, ran.stderr

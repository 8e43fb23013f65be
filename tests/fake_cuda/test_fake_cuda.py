"""Nothing in a step waits for a CUDA device, copies to it or from it; no GPU is needed to see it.

The steps run in a process of their own (child.py): what makes torch believe in a device has to be
there before torch is.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csrc.toolchain import Unavailable, find_toolchain
from entprop_fast.methods import METHODS
from tests.fake_cuda.child import CASES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TAIL = 8000  # characters


@pytest.fixture(scope="module")
def no_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """no_cuda.cpp, compiled."""
    if torch.version.cuda is not None or torch.version.hip is not None:
        pytest.skip("this torch is built for GPUs and has hooks of its own")
    try:
        toolchain = find_toolchain("cpu")
    except Unavailable as missing:
        pytest.skip(f"no_cuda.cpp cannot be compiled: {missing}")
    library = tmp_path_factory.mktemp("fake_cuda") / "no_cuda.so"
    torch_root = toolchain.torch_root
    flags = ["-std=c++20", "-O0", "-fPIC", "-shared", "-isystem", str(torch_root / "include")]
    libraries = [f"-L{torch_root / 'lib'}", f"-Wl,-rpath,{torch_root / 'lib'}"]
    command = [*toolchain.cxx, *flags, str(HERE / "no_cuda.cpp"), "-o", str(library)]
    subprocess.run([*command, *libraries, "-ltorch_cpu", "-lc10"], check=True)
    return library


def child(*arguments: str) -> str:
    """What a Python process of this tree printed; how it ended, and where, if it failed."""
    ran = subprocess.run(
        [sys.executable, "-X", "faulthandler", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        errors="backslashreplace",  # of what a dying process wrote
        timeout=600,
        check=False,
    )
    code = ran.returncode
    ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    assert code == 0, (
        f"{' '.join(arguments)}: {ended}\n"
        f"stderr ends with:\n{ran.stderr[-TAIL:]}\nstdout ends with:\n{ran.stdout[-TAIL:]}"
    )
    return ran.stdout


@pytest.fixture(scope="module")
def outcomes(no_cuda: Path) -> dict[str, str | None]:
    """Each case's error, or None."""
    printed = child("-m", "tests.fake_cuda.child", str(no_cuda))
    found: dict[str, str | None] = json.loads(printed.splitlines()[-1])
    return found


@pytest.mark.parametrize("case", CASES)
def test_step(case: str, outcomes: dict[str, str | None]) -> None:
    assert outcomes[case] is None, outcomes[case]


def test_every_method_is_covered() -> None:
    assert METHODS.keys() <= {case.split()[0] for case in CASES}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os; os.abort()", ("killed by SIGABRT", "Fatal Python error", "<string>")),
        ("import os; os.kill(os.getpid(), 9)", ("killed by SIGKILL",)),
        ("import nowhere", ("exit status 1", "No module named 'nowhere'")),
    ],
)
def test_a_child_that_fails_says_how(code: str, expected: tuple[str, ...]) -> None:
    code = f"print('prin' + 'ted', flush=True); {code}"
    with pytest.raises(AssertionError) as failed:
        child("-c", code)
    for part in ("printed", *expected):
        assert part in str(failed.value)

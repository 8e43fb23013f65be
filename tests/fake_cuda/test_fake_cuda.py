"""Nothing in a step waits for a CUDA device, copies to it or from it; no GPU is needed to see it.

The steps run in a process of their own (child.py): what makes torch believe in a device has to be
there before torch is.
"""

import json

import pytest

from entprop_fast.methods import METHODS
from tests.children import printed, run_python
from tests.fake_cuda.child import CASES
from tests.fake_cuda.device import library_or_skip


def child(*arguments: str) -> str:
    """What a process printed that has one thread."""
    return printed(run_python(*arguments, OMP_NUM_THREADS="1"))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str | None]:
    """Each case's error, or None."""
    printed = child("-m", "tests.fake_cuda.child", library_or_skip())
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

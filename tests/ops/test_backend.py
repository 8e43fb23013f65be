"""Which backend runs: the variable, the extension that is absent or broken, the CUDA guard."""

import os
import subprocess
import sys

import pytest

from entprop_fast.ops import backend
from entprop_fast.ops.triton_backend import guarded


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment
    )


def test_reference_is_a_choice() -> None:
    code = "from entprop_fast.ops import backend; print(sorted(backend.KERNEL_DEVICES))"
    assert run_python(code, ENTPROP_BACKEND="reference").stdout == "[]\n"


def test_unknown_choice() -> None:
    result = run_python("import entprop_fast.ops", ENTPROP_BACKEND="fast")
    assert "ENTPROP_BACKEND='fast': expected one of auto, reference" in result.stderr


@pytest.mark.parametrize("error", [ModuleNotFoundError("gone", name="entprop_fast._C"), None])
def test_extension_not_built_or_broken(
    error: ModuleNotFoundError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise error or ImportError("undefined symbol: torch_call_dispatcher")

    monkeypatch.setattr("importlib.import_module", refuse)
    if error is not None:
        assert not backend._load_extension()
        return
    with pytest.warns(UserWarning, match="does not load .undefined symbol"):
        assert not backend._load_extension()


def test_guard_asks_with_the_first_arguments() -> None:
    kernel = guarded(lambda a, b: a < b, 2, lambda *args: ("kernel", args), lambda *_: "reference")
    assert kernel(1, 2, 3) == ("kernel", (1, 2, 3))
    assert kernel(2, 1, 3) == "reference"


def test_triton_launchers_register_for_cuda() -> None:
    code = (
        "import torch; from entprop_fast.ops import triton_backend; triton_backend.register();"
        "norm = ['dual_batch_norm', 'dual_batch_norm_backward'];"
        "names = [*norm, 'loss_and_entropy', 'select_topk'];"
        "has = torch._C._dispatch_has_kernel_for_dispatch_key;"
        "print(all(has(f'entprop_fast::{name}', 'CUDA') for name in names))"
    )
    result = run_python(code)
    assert result.stdout == "True\n", result.stderr

import dataclasses
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from entprop_fast import build
from entprop_fast.lab.cli import env_report
from tests.children import run_python


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    build._load.cache_clear()
    yield
    build._load.cache_clear()


def _import_instead(monkeypatch: pytest.MonkeyPatch, outcome: ModuleType | Exception) -> None:
    def import_module(name: str) -> ModuleType:
        assert name == "entprop_fast._C"
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(importlib, "import_module", import_module)


def test_build_info_of_this_installation_is_consistent() -> None:
    info = build.build_info()
    assert (info.extension is None) == (info.reason is not None)
    assert (info.extension is None) == (build.extension() is None)
    assert set(info.backends) <= {"cpu", "cuda"}
    assert set(info.instruction_sets) <= {"avx2", "avx512"}
    if info.extension is None:
        assert info == build.BuildInfo(reason=info.reason)
    else:
        assert info.torch_target == "2.11"
        assert "-O3" in info.flags


def test_the_instruction_set_is_a_choice() -> None:
    """FOUND S3: the portable and AVX2 loops can be tried where AVX-512 would run."""
    code = "import entprop_fast; print(entprop_fast.build_info().instruction_set)"
    chosen = run_python("-c", code, ENTPROP_CPU_KERNELS="portable")
    if build.build_info().extension is None:
        pytest.skip("the C++ kernels are not built")
    assert chosen.stdout == "portable\n", chosen.stderr
    refused = run_python("-c", code, ENTPROP_CPU_KERNELS="sse9")
    assert "ValueError: ENTPROP_CPU_KERNELS='sse9': expected one of portable" in refused.stderr


def test_build_info_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        build.build_info().reason = "edited"  # type: ignore[misc]


def test_built_extension_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("entprop_fast._C")
    module.__file__ = "/somewhere/_C.so"
    answers = {field.name: "" for field in dataclasses.fields(build.BuildInfo)}
    answers |= {"backends": "cpu cuda", "cuda_archs": "sm_90 compute_90", "cuda_version": "13.0"}
    vars(module)["build_info"] = lambda: answers
    _import_instead(monkeypatch, module)
    info = build.build_info()
    assert build.extension() is module
    assert info.extension == "/somewhere/_C.so"
    assert info.reason is None
    assert info.backends == ("cpu", "cuda")
    assert info.instruction_sets == ()
    assert info.cuda_archs == ("sm_90", "compute_90")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("no module", name="entprop_fast._C"), "--no-build-isolation"),
        (ImportError("undefined symbol: aoti_torch_x"), "undefined symbol: aoti_torch_x"),
        (OSError("libtorch_cuda.so: cannot open"), "libtorch_cuda.so"),
    ],
)
def test_extension_that_cannot_be_had_is_explained(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    _import_instead(monkeypatch, error)
    info = build.build_info()
    assert build.extension() is None
    assert info.reason is not None
    assert reason in info.reason
    assert "extension" in env_report.report()["build"]


def test_other_missing_modules_are_not_mistaken_for_a_missing_extension(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _import_instead(monkeypatch, ModuleNotFoundError("no module", name="something_else"))
    with pytest.raises(ModuleNotFoundError):
        build.build_info()


def test_env_report_command_prints_every_section() -> None:
    command = [sys.executable, "-m", "entprop_fast.env_report"]
    root = Path(build.__file__).resolve().parent.parent
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(env_report.report())
    names = {line.split()[0] for line in lines if line.startswith("  ")}
    assert {"version", "git", "python", "torch", "triton", "numpy", "platform"} <= names
    assert {"cpu", "extension"} <= names

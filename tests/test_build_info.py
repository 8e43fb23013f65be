import importlib
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from types import ModuleType

import pytest

from entprop_fast import build
from entprop_fast.lab.cli import env_report
from tests.children import printed, run_python


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
        assert info.torch_target == "2.11" and "-O3" in info.flags
    with pytest.raises(FrozenInstanceError):
        info.reason = "edited"  # type: ignore[misc]


def test_the_instruction_set_is_a_choice() -> None:
    """FOUND S3: the portable and AVX2 loops can be tried where AVX-512 would run."""
    if build.build_info().extension is None:
        pytest.skip("the C++ kernels are not built")
    code = "import entprop_fast; print(entprop_fast.build_info().instruction_set)"
    assert printed(run_python("-c", code, ENTPROP_CPU_KERNELS="portable")) == "portable\n"
    refused = run_python("-c", code, ENTPROP_CPU_KERNELS="sse9")
    assert "ValueError: ENTPROP_CPU_KERNELS='sse9': expected one of portable" in refused.stderr


def test_built_extension_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("entprop_fast._C")
    module.__file__ = "/somewhere/_C.so"
    answers = {field.name: "" for field in fields(build.BuildInfo)}
    answers |= {"backends": "cpu cuda", "cuda_archs": "sm_90 compute_90", "cuda_version": "13.0"}
    vars(module)["build_info"] = lambda: answers
    _import_instead(monkeypatch, module)
    info = build.build_info()
    assert build.extension() is module
    assert (info.extension, info.reason) == ("/somewhere/_C.so", None)
    assert (info.backends, info.instruction_sets) == (("cpu", "cuda"), ())
    assert info.cuda_archs == ("sm_90", "compute_90")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("no module", name="entprop_fast._C"), "--no-build-isolation"),
        (ImportError("undefined symbol: aoti_torch_x"), "undefined symbol: aoti_torch_x"),
        (OSError("libtorch_cuda.so: cannot open"), "libtorch_cuda.so"),
        (ModuleNotFoundError("no module", name="something_else"), None),
    ],
)
def test_extension_that_cannot_be_had_is_explained(
    error: Exception, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _import_instead(monkeypatch, error)
    if reason is None:  # not mistaken for a missing extension
        with pytest.raises(ModuleNotFoundError):
            build.build_info()
        return
    assert build.extension() is None
    assert reason in (build.build_info().reason or "")
    assert "extension" in env_report.report()["build"]


def test_env_report_command_prints_every_section() -> None:
    lines = printed(run_python("-m", "entprop_fast.env_report")).splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(env_report.report())
    names = {line.split()[0] for line in lines if line.startswith("  ")}
    assert set("version git python torch triton numpy platform cpu extension".split()) <= names

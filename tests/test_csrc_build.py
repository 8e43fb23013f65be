"""csrc/build.py and csrc/toolchain.py: flags file by file, and real builds of a small csrc/."""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from setuptools import Distribution

from csrc import build, toolchain, wheel

from .children import ROOT

X86 = platform.machine() == "x86_64"
OP = """
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include "kernels.h"
const char* entprop::instruction_set() { return "avx2"; }
double sum_avx2(const float*, int64_t);
static double sum(torch::stable::Tensor x) {
  double total = 0;
  torch::stable::parallel_for(0, 1, 1, [&](int64_t, int64_t) {
    total = sum_avx2(static_cast<const float*>(x.data_ptr()), x.numel());
  });
  return total;
}
STABLE_TORCH_LIBRARY_FRAGMENT(entprop_build_test, m) { m.def("sum(Tensor x) -> float"); }
STABLE_TORCH_LIBRARY_IMPL(entprop_build_test, CPU, m) { m.impl("sum", TORCH_BOX(&sum)); }
"""
HEADER = "namespace entprop { const char* instruction_set(); }\n"
AVX2 = """
#include <cstdint>
#ifndef __AVX2__
#error "not compiled for AVX2"
#endif
double sum_avx2(const float* x, int64_t size) {
  double total = 0;
  for (int64_t i = 0; i < size; ++i) total += x[i];
  return total;
}
"""
USE = """
import torch
from entprop_fast import build
assert build.build_info().backends == ("cpu",), build.build_info()
assert build.build_info().instruction_sets == ("avx2",), build.build_info()
assert build.build_info().torch_version == torch.__version__
print(torch.ops.entprop_build_test.sum(torch.arange(5.0)))
"""


@pytest.fixture(scope="module")
def cxx() -> tuple[str, ...]:
    try:
        return toolchain.find_cxx()
    except toolchain.Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, cxx: tuple[str, ...]) -> Path:
    """A package whose csrc/ registers one op alone, which calls an AVX2 function."""
    folder = tmp_path_factory.mktemp("tree") / "with space"
    (folder / "csrc" / "cpu").mkdir(parents=True)
    for name in ("build.py", "toolchain.py", "wheel.py", "bindings.cpp"):
        shutil.copy(ROOT / "csrc" / name, folder / "csrc")
    for name, text in {"kernels.h": HEADER, "sum.cpp": OP, "sum_avx2.cpp": AVX2}.items():
        (folder / "csrc" / "cpu" / name).write_text(text)
    (folder / "entprop_fast").mkdir()
    (folder / "entprop_fast" / "__init__.py").write_text('__version__ = "0"\n')
    shutil.copy(ROOT / "entprop_fast" / "build.py", folder / "entprop_fast")
    shutil.copy(ROOT / "setup.py", folder)
    return folder


def build_in_place(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ENTPROP_BUILD": "cpu", **variables}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(not X86, reason="the op under test calls an AVX2 function")
def test_build_loads_is_incremental_and_fails_in_plain_sight(tree: Path) -> None:
    built = build_in_place(tree)
    assert built.returncode == 0, built.stdout + built.stderr
    used = subprocess.run([sys.executable, "-c", USE], cwd=tree, capture_output=True, text=True)
    assert used.stdout == "10.0\n", used.stderr

    (compiled,) = tree.glob("build/*/csrc_bindings.cpp.o")
    before = compiled.stat().st_mtime_ns
    (tree / "csrc" / "cpu" / "broken.cpp").write_text("int broken( {\n")
    again = build_in_place(tree)
    assert compiled.stat().st_mtime_ns == before
    # With nvcc "auto" compiles the bindings again.
    for broken in (again, build_in_place(tree, ENTPROP_BUILD="auto")):
        assert broken.returncode == 1
        assert "broken.cpp:1" in broken.stdout + broken.stderr
        assert "ENTPROP_BUILD=off installs entprop-fast without compiled kernels" in broken.stderr
    (tree / "csrc" / "cpu" / "broken.cpp").unlink()


@pytest.mark.skipif(not X86, reason="the op under test calls an AVX2 function")
def test_a_wheel_s_name_and_last_line_say_what_it_holds(tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(tmp_path)]
    built = subprocess.run(
        command, cwd=tree, env=os.environ | {"ENTPROP_BUILD": "cpu"}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (made,) = tmp_path.iterdir()
    assert made.name.endswith("-cp311-abi3-linux_x86_64.whl")
    assert "entprop_fast/_C.abi3.so" in zipfile.ZipFile(made).namelist()
    holds = built.stderr.splitlines()[-1]
    assert holds.startswith(
        f"entprop-fast: {made.name} holds no Triton kernels, C++ kernels, no CUDA"
    )
    assert "needs Python 3.11 or later, torch 2.11 or later, glibc 2." in holds


def test_what_a_module_needs_of_the_system() -> None:
    names = (b"GLIBC_2.9", b"GLIBC_2.14", b"GLIBC_2.2.5", b"GLIBCXX_3.4.9", b"XGLIBC_9.9")
    needed = wheel.needed_libraries(b"\0" + b"\0".join(names) + b"\0")
    assert needed == {"glibc": "2.14", "libstdc++": "3.4.9"}
    assert wheel.needed_libraries(b"") == {}


@pytest.mark.parametrize(
    ("mode", "error"),
    [("auto", None), ("off", None), ("bogus", "'bogus'"), ("cpu", "cpu"), ("cuda", "cuda")],
)
def test_without_a_compiler_that_works(
    mode: str,
    error: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is built, with one line where that will do, an error where kernels are asked for."""
    monkeypatch.setenv("ENTPROP_BUILD", mode)
    monkeypatch.setenv("CXX", "false")  # starts, and compiles nothing
    monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
    if error is not None:
        with pytest.raises(SystemExit, match=f"ENTPROP_BUILD={error}"):
            build.extensions()
        return
    assert build.extensions() == []
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("entprop-fast:")
    assert ("ENTPROP_BUILD=off" if mode == "off" else "false -std=c++20") in said


def test_a_module_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, installed = tmp_path / "_C.so", tmp_path / "package" / "_C.so"
    installed.parent.mkdir()
    earlier = installed.with_name(f"_C{EXTENSION_SUFFIXES[0]}")  # which Python would import first
    earlier.write_bytes(b"older")
    module.write_bytes(b"new")
    installed.write_bytes(b"old")
    replace, replaced = os.replace, []

    def watched(source: str, target: str) -> None:
        assert (Path(source).read_bytes(), installed.read_bytes()) == (b"new", b"old")
        replaced.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    build.BuildExtension(Distribution()).copy_file(str(module), str(installed))
    assert replaced == [str(installed)]
    assert list(installed.parent.iterdir()) == [installed] and installed.read_bytes() == b"new"


def test_steps_run_without_ninja(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_find_ninja", lambda: None)
    parts, both = [tmp_path / "1", tmp_path / "2"], tmp_path / "both"
    compiles = [build.Step(["touch", str(path)], [], path) for path in parts]
    link = build.Step(["cp", *map(str, parts), "-t", f"{both}"], parts, both)
    both.mkdir()
    build.run_steps(compiles, link, tmp_path)
    assert {path.name for path in both.iterdir()} == {"1", "2"}
    failing = build.Step(["false"], [], tmp_path / "3")
    with pytest.raises(subprocess.CalledProcessError):
        build.run_steps([failing], link, tmp_path)


@pytest.mark.skipif(not X86, reason="instruction sets of x86-64")
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("norm.cpp", set()),
        ("norm_avx2.cpp", {"-mavx2", "-mfma"}),
        ("norm_avx512.cpp", {"-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"}),
    ],
)
def test_only_the_named_files_get_their_instruction_set(name: str, flags: set[str]) -> None:
    tools = toolchain.Toolchain(("g++",), Path("/torch"), "2.13.0", None, None)
    command = build.compile_command(build.CSRC / "cpu" / name, Path("/o/norm.o"), tools)
    assert {word for word in command if word.startswith("-m")} == flags
    assert "-DENTPROP_HAVE_AVX512" in command


def test_cuda_files_compile_for_the_default_architectures(
    tmp_path: Path, cxx: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    try:
        cuda = toolchain.find_cuda("2.13.0+cu130", "13.0", cxx)
    except toolchain.Unavailable as missing:
        pytest.skip(str(missing))
    root, version, _ = toolchain.find_torch()
    tools = toolchain.Toolchain(cxx, root, version, cuda, None)
    (tmp_path / "cuda").mkdir()
    for name, text in {
        "fill.cu": "__global__ void fill(float* x, float v) { x[threadIdx.x] = v; }\n",
        "fill.cpp": "#include <torch/csrc/stable/accelerator.h>\n",
    }.items():
        path, made = tmp_path / "cuda" / name, tmp_path / f"{name}.o"
        path.write_text(text)
        subprocess.run(build.compile_command(path, made, tools), check=True)
        assert made.stat().st_size > 0
    for arch in ("code=sm_80", "code=sm_90", "code=sm_100", "code=compute_100"):
        assert any(flag.endswith(arch) for flag in cuda.gencode)


def test_cuda_is_refused_for_a_torch_that_cannot_use_it(cxx: tuple[str, ...]) -> None:
    with pytest.raises(toolchain.Unavailable, match="build without CUDA"):
        toolchain.find_cuda("2.13.0+cpu", None, cxx)
    if shutil.which("nvcc"):
        with pytest.raises(toolchain.Unavailable, match=r"built for CUDA 3\.0"):
            toolchain.find_cuda("1.0", "3.0", cxx)


def test_architecture_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for requested, codes in {
        "9.0": ["sm_90"],
        "8.0;9.0a": ["sm_80", "sm_90a"],
        "8.6, 12.0+PTX": ["sm_86", "sm_120", "compute_120"],
        "": ["sm_80", "sm_90", "compute_90"],
    }.items():
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", requested)
        flags = toolchain.cuda_gencode(["compute_75", "compute_80", "compute_90"])
        assert [flag.rpartition("code=")[2] for flag in flags] == codes
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.0;Hopper")
    with pytest.raises(SystemExit, match="'Hopper'"):
        toolchain.cuda_gencode([])

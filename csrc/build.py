"""How csrc/ becomes the module ``entprop_fast._C``: which files, which flags, one ninja run.

- ``bindings.cpp``: always; the module itself, which answers what was built.
- ``cpu/*.cpp``: always. ``*_avx2.cpp`` and ``*_avx512.cpp`` are compiled for those instruction sets
  and on x86-64 only, where every C++ file sees ``ENTPROP_HAVE_AVX2`` and ``ENTPROP_HAVE_AVX512``;
  the code chooses among them at run time.
- ``cuda/*.cu`` and ``cuda/*.cpp``: with nvcc. A ``.cu`` file does not see torch's headers.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from setuptools import Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

from csrc.toolchain import Toolchain, Unavailable, build_mode, find_toolchain

CSRC = Path(__file__).resolve().parent
ROOT = CSRC.parent
# The ops use torch through its stable ABI only, as of this release: one build serves later ones.
TORCH_TARGET = "2.11"
DEFINES = ["-DNDEBUG", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
# Python's stable ABI, as of the oldest one in pyproject.toml's requires-python. An interpreter
# without the GIL has none, and gets a module of its own.
PYTHON_TARGET = (3, 11)
STABLE_PYTHON = not sysconfig.get_config_var("Py_GIL_DISABLED")
if STABLE_PYTHON:
    DEFINES.append("-DPy_LIMITED_API=0x{:02x}{:02x}0000".format(*PYTHON_TARGET))
# Without errno and trapping semantics sqrt and comparisons vectorise; neither changes a value.
CXX_FLAGS = ["-std=c++20", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno"]
CXX_FLAGS += ["-fno-trapping-math", "-fopenmp-simd", "-Wall", "-Wextra"]
NVCC_FLAGS = ["-std=c++20", "-O3", "-lineinfo", "-Xcompiler=-fPIC,-fvisibility=hidden"]
INSTRUCTION_SETS = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"],
}
COMMANDS_THAT_COMPILE = {
    "build",
    "build_ext",
    "bdist_wheel",
    "editable_wheel",
    "install",
    "develop",
}


@dataclass(frozen=True)
class Step:
    """One command of the build: it makes ``output`` from ``inputs``."""

    command: list[str]
    inputs: list[Path]
    output: Path


class Kernels(Extension):
    """The extension module ``entprop_fast._C``, built with ``toolchain``."""

    def __init__(self, toolchain: Toolchain) -> None:
        files = [str(path.relative_to(ROOT)) for path in sources(toolchain)]
        super().__init__("entprop_fast._C", files, py_limited_api=STABLE_PYTHON)
        self.toolchain = toolchain


def extensions() -> list[Extension]:
    """Return the extension to build, or none, with the reason on standard error in one line.

    Raises:
        SystemExit: an unknown ``ENTPROP_BUILD``, or one that cannot be honoured: ``cpu`` without a
            compiler, ``cuda`` without all that CUDA kernels need.
    """
    mode = build_mode()
    # Metadata and source archives compile nothing: no need to import torch for them.
    if not COMMANDS_THAT_COMPILE.intersection(sys.argv):
        return []
    if mode == "off":
        return _pure_python("ENTPROP_BUILD=off")
    try:
        toolchain = find_toolchain(mode)
    except Unavailable as missing:
        if mode != "auto":
            raise SystemExit(
                f"entprop-fast: ENTPROP_BUILD={mode} is not possible: {missing}"
            ) from None
        return _pure_python(str(missing))
    cuda = toolchain.cuda
    scope = f"CPU and CUDA {cuda.version}" if cuda else f"CPU only: {toolchain.why_no_cuda}"
    say(f"compiling against torch {toolchain.torch_version} ({scope})")
    return [Kernels(toolchain)]


def sources(toolchain: Toolchain) -> list[Path]:
    """Return the files of csrc/ that ``toolchain`` compiles on this processor."""
    cpu = [path for path in CSRC.glob("cpu/*.cpp") if _is_x86() or _instruction_set(path) is None]
    cuda = [*CSRC.glob("cuda/*.cpp"), *CSRC.glob("cuda/*.cu")] if toolchain.cuda else []
    return [CSRC / "bindings.cpp", *sorted(cpu), *sorted(cuda)]


def compile_command(source: Path, output: Path, toolchain: Toolchain) -> list[str]:
    """Return the command that compiles ``source`` to ``output`` and its ``.d`` dependencies."""
    common = [*DEFINES, f"-I{CSRC}", f"-I{output.parent}", "-MD", "-MF", f"{output}.d"]
    common += ["-c", str(source), "-o", str(output)]
    torch_headers = ["-isystem", str(toolchain.torch_root / "include")]
    if source.parent.name == "cuda":
        if toolchain.cuda is None:
            raise ValueError(f"{source} needs nvcc, and this toolchain has none")
        nvcc = [*toolchain.cuda.nvcc, *NVCC_FLAGS]
        if source.suffix == ".cu":
            return [*nvcc, *toolchain.cuda.gencode, *common]
        return [*nvcc, "-DUSE_CUDA", *torch_headers, *common]
    instruction_set = INSTRUCTION_SETS.get(_instruction_set(source) or "", [])
    available = [f"-DENTPROP_HAVE_{name.upper()}" for name in INSTRUCTION_SETS if _is_x86()]
    headers = [*torch_headers, "-isystem", sysconfig.get_path("include")]
    return [*toolchain.cxx, *CXX_FLAGS, *instruction_set, *available, *headers, *common]


def link_command(objects: list[Path], output: Path, toolchain: Toolchain) -> list[str]:
    """Return the command that links the module; torch's libraries are loaded before it."""
    libraries = [f"-L{toolchain.torch_root / 'lib'}", "-ltorch_cpu"]
    files = [*map(str, objects), "-o", str(output)]
    if toolchain.cuda is None:
        return [*toolchain.cxx, "-shared", *files, *libraries]
    # cudart is linked statically: torch may be upgraded to one built with another toolkit.
    nvcc = [*toolchain.cuda.nvcc, "-shared", "-cudart", "static"]
    return [*nvcc, *files, *libraries, "-ltorch_cuda"]


def build_config(toolchain: Toolchain) -> str:
    """Return the header that tells ``bindings.cpp`` what is built; lists are space-separated."""
    parts = {path.parent.name for path in sources(toolchain)} & {"cpu", "cuda"}
    sets = {_instruction_set(path) for path in sources(toolchain)} - {None}
    cuda = toolchain.cuda
    values = {
        "BACKENDS": " ".join(sorted(parts)),
        "INSTRUCTION_SETS": " ".join(sorted(filter(None, sets))),
        "FLAGS": " ".join(CXX_FLAGS),
        "PYTHON_TARGET": ".".join(map(str, PYTHON_TARGET)) if STABLE_PYTHON else "",
        "TORCH_VERSION": toolchain.torch_version,
        "TORCH_TARGET": TORCH_TARGET,
        "CUDA_VERSION": cuda.version if cuda else "",
        "CUDA_ARCHS": " ".join(flag.rpartition("code=")[2] for flag in cuda.gencode)
        if cuda
        else "",
    }
    lines = [f'#define ENTPROP_{name} "{value}"' for name, value in values.items()]
    return "\n".join(["#pragma once", *lines, ""])


class BuildExtension(build_ext):
    """setuptools' ``build_ext``, with the compiling and linking done by ninja in build/."""

    def build_extension(self, ext: Kernels) -> None:
        """Compile ``ext`` and put the module where setuptools expects it.

        Raises:
            CompileError: csrc/ does not compile; the compiler's output stands above.
        """
        toolchain = ext.toolchain
        # Kept between builds, unlike setuptools' temporary folder: only what changed is compiled.
        folder = ROOT / "build" / f"{python_tag()}-torch{toolchain.torch_version}"
        module = folder / "_C.so"
        compiles, link = build_steps(toolchain, folder, module)
        try:
            run_steps(compiles, link, folder)
        except subprocess.CalledProcessError as error:
            raise CompileError(
                f"csrc/ did not compile with {shlex.join(toolchain.cxx)}; its output is above. "
                "ENTPROP_BUILD=off installs entprop-fast without compiled kernels."
            ) from error
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.copy_file(str(module), str(target))

    def copy_file(self, infile: str, outfile: str, **settings: Any) -> Any:
        """Copy a file as setuptools does, but whole or not at all.

        A process that imports the module while it is written, or has mapped the one that is written
        over, dies of SIGBUS or SIGSEGV. One of another suffix goes, which an earlier build left
        beside it and Python would import in its place.
        """
        fresh = f"{outfile}.new"
        result = super().copy_file(infile, fresh, **settings)
        os.replace(fresh, outfile)
        folder, _, name = outfile.rpartition("/")
        for suffix in EXTENSION_SUFFIXES:
            other = f"{name.partition('.')[0]}{suffix}"
            if other != name:
                Path(folder, other).unlink(missing_ok=True)
        return result


def python_tag() -> str:
    """Return which Pythons load the module: ``cp311`` and later, or this one alone."""
    if STABLE_PYTHON:
        return "cp{}{}".format(*PYTHON_TARGET)
    return str(sys.implementation.cache_tag)


def build_steps(toolchain: Toolchain, folder: Path, module: Path) -> tuple[list[Step], Step]:
    """Compilations into `folder`, where ``build_config.h`` is left, and the link of `module`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_if_changed(folder / "build_config.h", build_config(toolchain))
    compiles = []
    for source in sources(toolchain):
        output = folder / f"{source.parent.name}_{source.name}.o"
        compiles.append(Step(compile_command(source, output, toolchain), [source], output))
    objects = [step.output for step in compiles]
    return compiles, Step(link_command(objects, module, toolchain), objects, module)


def run_steps(compiles: list[Step], link: Step, folder: Path) -> None:
    """Run all of ``compiles`` in parallel (``MAX_JOBS`` at a time), then ``link``.

    With ninja only what is out of date runs; without it, everything does.

    Raises:
        subprocess.CalledProcessError: a command failed.
    """
    jobs = int(os.environ.get("MAX_JOBS") or len(os.sched_getaffinity(0)))
    ninja = _find_ninja()
    if ninja is not None:
        _write_if_changed(folder / "build.ninja", ninja_file(compiles, link))
        subprocess.run([ninja, "-C", str(folder), "-j", str(jobs)], check=True)
        return
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda step: subprocess.run(step.command, check=True), compiles))
    subprocess.run(link.command, check=True)


def ninja_file(compiles: Iterable[Step], link: Step) -> str:
    """Return the text of build.ninja: a ``compile`` edge for each source, then one ``link``."""
    lines = ["rule compile", "  command = $cmd", "  depfile = $out.d", "  deps = gcc"]
    lines += ["rule link", "  command = $cmd"]
    for rule, step in [*(("compile", step) for step in compiles), ("link", link)]:
        inputs = " ".join(_ninja_path(path) for path in step.inputs)
        lines.append(f"build {_ninja_path(step.output)}: {rule} {inputs}")
        lines.append(f"  cmd = {shlex.join(step.command).replace('$', '$$')}")
    return "\n".join([*lines, ""])


def _find_ninja() -> str | None:
    beside_python = str(Path(sysconfig.get_path("scripts"), "ninja"))
    return shutil.which(beside_python) or shutil.which("ninja")


def _ninja_path(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def _write_if_changed(path: Path, text: str) -> None:
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _instruction_set(source: Path) -> str | None:
    suffix = source.stem.rpartition("_")[2]
    return suffix if suffix in INSTRUCTION_SETS else None


def _is_x86() -> bool:
    return platform.machine() in ("x86_64", "AMD64")


def _pure_python(reason: str) -> list[Extension]:
    say(f"installing pure Python, without compiled kernels: {reason}")
    return []


def say(message: str) -> None:
    """Print a line about the build on standard error."""
    print(f"entprop-fast: {message}", file=sys.stderr, flush=True)

"""What this machine can compile: the installed torch, a C++20 compiler and, if asked for, nvcc.

A GPU is never asked for: the machine that builds need not be the one that trains.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

MODES = ("auto", "cpu", "cuda", "off")
MINIMUM_TORCH = (2, 11)
DEFAULT_CUDA_ARCHS = ("80", "90", "100")
NO_TORCH = (
    "torch cannot be imported where this package is being built ({error}). To compile its kernels "
    "against the torch you have: pip install --no-build-isolation --no-cache-dir entprop-fast "
    "(or a path in place of the name)"
)


class Unavailable(Exception):
    """A part of the toolchain is missing; the message says which, and what would be needed."""


@dataclass(frozen=True)
class Cuda:
    """nvcc's command with its host compiler, its release, and the ``-gencode`` flags."""

    nvcc: tuple[str, ...]
    version: str
    gencode: tuple[str, ...]


@dataclass(frozen=True)
class Toolchain:
    """What the extension is compiled with; ``cuda`` is None when only the CPU part is built."""

    cxx: tuple[str, ...]
    torch_root: Path
    torch_version: str
    cuda: Cuda | None
    why_no_cuda: str | None


def build_mode() -> str:
    """Return ``ENTPROP_BUILD``, one of :data:`MODES`; ``auto`` when unset.

    Raises:
        SystemExit: any other value.
    """
    mode = os.environ.get("ENTPROP_BUILD") or "auto"
    if mode not in MODES:
        raise SystemExit(f"ENTPROP_BUILD={mode!r} is unknown: use one of {', '.join(MODES)}")
    return mode


def find_toolchain(mode: str) -> Toolchain:
    """Everything that ``mode`` (``auto``, ``cpu`` or ``cuda``) builds with.

    Raises:
        Unavailable: nothing can be compiled or, with ``cuda``, CUDA kernels cannot.
    """
    if sys.platform != "linux":
        raise Unavailable(f"the kernels are compiled on Linux only, this is {sys.platform}")
    torch_root, torch_version, torch_cuda = find_torch()
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise Unavailable("Python.h is missing (Debian and Ubuntu: apt install python3-dev)")
    cxx = find_cxx()
    if mode == "cpu":
        return Toolchain(cxx, torch_root, torch_version, None, "ENTPROP_BUILD=cpu")
    try:
        cuda = find_cuda(torch_version, torch_cuda, cxx)
    except Unavailable as missing:
        if mode == "cuda":
            raise
        return Toolchain(cxx, torch_root, torch_version, None, str(missing))
    return Toolchain(cxx, torch_root, torch_version, cuda, None)


def find_torch() -> tuple[Path, str, str | None]:
    """Folder, version and CUDA version (None for a CPU build) of the installed torch."""
    try:
        import torch
    except (ImportError, OSError) as error:
        raise Unavailable(NO_TORCH.format(error=error)) from error
    version = str(torch.__version__)
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_TORCH:
        needed = ".".join(map(str, MINIMUM_TORCH))
        raise Unavailable(f"torch {version} is installed, the kernels need torch>={needed}")
    return Path(torch.__file__).parent, version, torch.version.cuda


def find_cxx() -> tuple[str, ...]:
    """Return the C++ compiler: ``$CXX`` if set, else the first of c++, g++ and clang++."""
    if os.environ.get("CXX"):
        command = tuple(shlex.split(os.environ["CXX"]))
    else:
        names = ("c++", "g++", "clang++")
        found = next((path for path in map(shutil.which, names) if path), None)
        if found is None:
            raise Unavailable(f"no C++ compiler is on PATH (looked for {', '.join(names)})")
        command = (found,)
    # A compiler without its standard library, or an old one, is no compiler for our purpose.
    _output(*command, "-std=c++20", "-x", "c++", "-fsyntax-only", "-", stdin="#include <span>\n")
    return command


def find_cuda(torch_version: str, torch_cuda: str | None, cxx: tuple[str, ...]) -> Cuda:
    """nvcc and its flags, if it accepts the C++ compiler and torch can use what it compiles."""
    if torch_cuda is None:
        raise Unavailable(f"the installed torch {torch_version} is a build without CUDA")
    roots = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [str(Path(root, "bin", "nvcc")) for root in roots if root]
    nvcc = next(
        filter(None, map(shutil.which, [*places, "nvcc", "/usr/local/cuda/bin/nvcc"])), None
    )
    if nvcc is None:
        raise Unavailable("nvcc was not found (CUDA_HOME, CUDA_PATH, PATH, /usr/local/cuda)")
    release = re.search(r"release (\d+\.\d+)", _output(nvcc, "--version"))
    if release is None:
        raise Unavailable(f"{nvcc} --version names no release")
    version = release[1]
    if version.partition(".")[0] != torch_cuda.partition(".")[0]:
        raise Unavailable(f"nvcc is {version}, the installed torch was built for CUDA {torch_cuda}")
    host = next((word for word in cxx if Path(word).name != "ccache"), cxx[0])
    command = (nvcc, "-ccbin", host)
    # The headers that nvcc includes by itself refuse host compilers it was not made for.
    _output(*command, "-std=c++20", "-x", "cu", "-E", os.devnull)
    return Cuda(command, version, cuda_gencode(_output(nvcc, "--list-gpu-arch").split()))


def cuda_gencode(supported: list[str]) -> tuple[str, ...]:
    """Return ``-gencode`` flags: ``TORCH_CUDA_ARCH_LIST``, or sm_80, 90, 100 and PTX when unset.

    Args:
        supported: what ``nvcc --list-gpu-arch`` prints (``compute_80`` and so on); of the default
            list, only these are kept.

    Raises:
        SystemExit: an entry that is not of the form ``9.0``, ``9.0a`` or ``9.0+PTX``.
    """
    requested = (
        os.environ.get("TORCH_CUDA_ARCH_LIST", "").replace(";", " ").replace(",", " ").split()
    )
    if not requested:
        kept = [arch for arch in DEFAULT_CUDA_ARCHS if f"compute_{arch}" in supported]
        requested = [f"{arch[:-1]}.{arch[-1]}" for arch in kept]
        requested[-1] += "+PTX"
    flags = []
    for entry in requested:
        match = re.fullmatch(r"(\d+)\.(\d[af]?)(\+PTX)?", entry)
        if match is None:
            raise SystemExit(
                f"TORCH_CUDA_ARCH_LIST: {entry!r} is no architecture; valid: '8.0;9.0a;10.0+PTX'"
            )
        arch = match[1] + match[2]
        flags.append(f"-gencode=arch=compute_{arch},code=sm_{arch}")
        if match[3]:
            flags.append(f"-gencode=arch=compute_{arch},code=compute_{arch}")
    return tuple(flags)


def shared_library(source: Path, folder: Path, toolchain: Toolchain, *flags: str) -> Path:
    """Compile one C++ file into a library in `folder`, for a process that loads it before torch.

    Args:
        source: the file.
        folder: of the library, which has the file's name.
        toolchain: compiles it.
        flags: come after the file.
    """
    library = folder / f"{source.stem}.so"
    plain = ["-std=c++20", "-O1", "-fPIC", "-shared"]
    subprocess.run([*toolchain.cxx, *plain, str(source), "-o", str(library), *flags], check=True)
    return library


def _output(*command: str, stdin: str = "") -> str:
    try:
        run = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)
    except OSError as error:
        raise Unavailable(f"{command[0]} does not start ({error})") from error
    except subprocess.CalledProcessError as error:
        complaint = (error.stderr.strip() or f"exit code {error.returncode}").splitlines()[0]
        raise Unavailable(f"{shlex.join(command)} failed ({complaint})") from error
    return run.stdout

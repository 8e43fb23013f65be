"""Load the module that csrc/ was compiled to, and say what is in it."""

from __future__ import annotations

import functools
import importlib
import os
from dataclasses import dataclass
from types import ModuleType

# Loads the libraries that the extension module is linked against.
import torch  # noqa: F401

NOT_BUILT = (
    "entprop_fast._C is not built; `pip install -v --no-build-isolation .` in the source folder "
    "builds it where torch and a C++ compiler are installed, and otherwise says what is missing"
)


@dataclass(frozen=True)
class BuildInfo:
    """Say what was built; without an extension module every field but ``reason`` is empty.

    Attributes:
        extension: path of the compiled module ``entprop_fast._C``, None if there is none.
        reason: why there is none (never built, or it does not load); None if there is one.
        damaged: there is one, and it does not load.
        backends: compiled parts, of ``"cpu"`` (C++) and ``"cuda"`` (CUDA C++).
        instruction_sets: what CPU kernels have beside portable code, of ``"avx2"``, ``"avx512"``.
        instruction_set: which of them and ``"portable"`` the CPU kernels use: the best that this
            processor has, or ``ENTPROP_CPU_KERNELS``.
        compiler: the C++ compiler and its version.
        flags: the flags shared by all C++ files.
        python_target: the oldest Python that loads the module, as later ones do; empty where it
            is for this one alone.
        torch_version: the torch whose headers were used.
        torch_target: the oldest torch that can load the module.
        cuda_version: nvcc's release, empty without CUDA.
        cuda_archs: ``"sm_90"`` and so on, ``"compute_100"`` for PTX.
    """

    extension: str | None = None
    reason: str | None = None
    damaged: bool = False
    backends: tuple[str, ...] = ()
    instruction_sets: tuple[str, ...] = ()
    instruction_set: str = ""
    compiler: str = ""
    flags: str = ""
    python_target: str = ""
    torch_version: str = ""
    torch_target: str = ""
    cuda_version: str = ""
    cuda_archs: tuple[str, ...] = ()


def build_info() -> BuildInfo:
    """Return what this installation was compiled with; where nothing was, ``reason`` says why.

    An extension module that does not load is reported, and its ops fall back.

    Raises:
        ValueError: ``ENTPROP_CPU_KERNELS`` names an instruction set that is not to be had here.
    """
    return _load()[1]


def extension() -> ModuleType | None:
    """Return the compiled module ``entprop_fast._C``, its ops registered; None without one."""
    return _load()[0]


@functools.cache
def _load() -> tuple[ModuleType | None, BuildInfo]:
    try:
        module = importlib.import_module("entprop_fast._C")
    except ModuleNotFoundError as error:
        if error.name != "entprop_fast._C":
            raise
        return None, BuildInfo(reason=NOT_BUILT)
    except (ImportError, OSError) as error:
        reason = f"entprop_fast._C does not load ({error}); build it again"
        return None, BuildInfo(reason=reason, damaged=True)
    built: dict[str, str] = module.build_info()
    wanted = os.environ.get("ENTPROP_CPU_KERNELS")
    if wanted and wanted != built.get("instruction_set"):
        names = ", ".join(("portable", *built["instruction_sets"].split()))
        raise ValueError(
            f"ENTPROP_CPU_KERNELS={wanted!r}: expected one of {names} that this processor has"
        )
    info = BuildInfo(
        extension=module.__file__,
        backends=tuple(built["backends"].split()),
        instruction_sets=tuple(built["instruction_sets"].split()),
        instruction_set=built.get("instruction_set", ""),
        compiler=built["compiler"],
        flags=built["flags"],
        python_target=built.get("python_target", ""),
        torch_version=built["torch_version"],
        torch_target=built["torch_target"],
        cuda_version=built["cuda_version"],
        cuda_archs=tuple(built["cuda_archs"].split()),
    )
    return module, info

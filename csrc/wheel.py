"""Make wheels that say what they hold: in their name, and in a line at the end of the build."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from setuptools.command.bdist_wheel import bdist_wheel

from csrc.build import PYTHON_TARGET, STABLE_PYTHON, Kernels, python_tag, say
from csrc.toolchain import MINIMUM_TORCH

_VERSION = rb"\0%s_(\d+(?:\.\d+)+)(?=\0)"  # of a library's symbols, as a module names it
_LIBRARIES = {"glibc": b"GLIBC", "libstdc++": b"GLIBCXX"}


class Wheel(bdist_wheel):
    """setuptools' ``bdist_wheel``: ``py3-none-any`` without compiled kernels, else ``cp311-abi3``.

    The platform is ``linux_x86_64``, and never a ``manylinux`` that nothing here has checked.
    """

    def finalize_options(self) -> None:
        """Name the oldest Python of a module that keeps to the stable ABI."""
        if STABLE_PYTHON and self.distribution.has_ext_modules():
            self.py_limited_api = python_tag()
        super().finalize_options()

    def run(self) -> None:
        """Build the wheel, and print what is in it."""
        super().run()
        kernels = [one for one in self.distribution.ext_modules or () if isinstance(one, Kernels)]
        name = f"{self.wheel_dist_name}-{'-'.join(self.get_tag())}.whl"
        say(f"{name} holds {contents(Path(self.dist_dir, name), kernels)}")


def contents(wheel: Path, kernels: Collection[Kernels]) -> str:
    """Say what a wheel holds and needs: read from its files, not from what was to be built."""
    with zipfile.ZipFile(wheel) as archive:
        names = [PurePosixPath(name) for name in archive.namelist()]
        modules = [archive.read(str(name)) for name in names if name.match("entprop_fast/_C.*")]
    size = f"{wheel.stat().st_size / 1e6:.1f} MB"
    triton = any(name.match("entprop_fast/kernels/__init__.py") for name in names)
    parts = ["Triton kernels"] if triton else ["no Triton kernels"]
    if not modules:
        return f"pure Python, {', '.join([*parts, 'no compiled kernels'])} ({size})"
    cuda = next((one.toolchain.cuda for one in kernels if one.toolchain.cuda), None)
    parts += ["C++ kernels", f"CUDA {cuda.version} kernels" if cuda else "no CUDA C++"]
    python, torch = (".".join(map(str, one)) for one in (PYTHON_TARGET, MINIMUM_TORCH))
    needs = [f"Python {python} or later" if STABLE_PYTHON else f"Python {python_tag()} alone"]
    needs.append(f"torch {torch} or later{', built for CUDA' if cuda else ''}")
    needs += map(" ".join, needed_libraries(modules[0]).items())
    return f"{', '.join(parts)} ({size}); it needs {', '.join(needs)}"


def needed_libraries(module: bytes) -> dict[str, str]:
    """Return the newest symbol version of each system library that a compiled module asks for."""
    found = {}
    for library, prefix in _LIBRARIES.items():
        versions = re.findall(_VERSION % prefix, module)
        if versions:
            found[library] = max(versions, key=lambda v: [*map(int, v.split(b"."))]).decode()
    return found

"""Build script: pyproject.toml holds the metadata, csrc/ decides what can be compiled and how."""

import sys
from pathlib import Path

import setuptools

if int(setuptools.__version__.partition(".")[0]) < 77:
    raise SystemExit(
        f"entprop-fast needs setuptools>=77 to build, found {setuptools.__version__}: "
        "pip install --upgrade setuptools"
    )

ROOT = Path(__file__).resolve().parent
if not (ROOT / "entprop_fast" / "kernels").is_dir():
    print(
        "entprop-fast: without Triton kernels: entprop_fast/kernels is no folder, as in a clone "
        "without symbolic links (git config core.symlinks true)",
        file=sys.stderr,
    )

# Build back ends run this file without its folder on sys.path.
sys.path.insert(0, str(ROOT))
from csrc.build import BuildExtension, extensions
from csrc.wheel import Wheel

setuptools.setup(
    ext_modules=extensions(), cmdclass={"build_ext": BuildExtension, "bdist_wheel": Wheel}
)

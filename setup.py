"""Build script: pyproject.toml holds the metadata, csrc/ decides what can be compiled and how."""

import sys
from pathlib import Path

import setuptools

if int(setuptools.__version__.partition(".")[0]) < 77:
    raise SystemExit(
        f"entprop-fast needs setuptools>=77 to build, found {setuptools.__version__}: "
        "pip install --upgrade setuptools"
    )

# Build back ends run this file without its folder on sys.path.
sys.path.insert(0, str(Path(__file__).resolve().parent))
from csrc.build import BuildExtension, extensions

setuptools.setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExtension})

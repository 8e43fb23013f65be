"""Print what a bug report should hold, as plain lines: ``python -m entprop_fast.env_report``."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

import entprop_fast
from entprop_fast.build import BuildInfo, build_info
from entprop_fast.lab.cli.called import words_of
from entprop_fast.lab.cli.commands import COMMANDS
from entprop_fast.ops import backends

_MODULE = "entprop_fast.env_report"
EXIT_USAGE = 2

PACKAGES = ("triton", "numpy", "torchvision", "timm")
PACKAGE = Path(entprop_fast.__file__).resolve().parent
ROOT = PACKAGE.parent


def report() -> dict[str, dict[str, str]]:
    """Return sections of ``name -> value`` lines, in the order in which they are printed."""
    return {
        "entprop_fast": {
            "version": entprop_fast.__version__,
            "git": git_revision() or "not a checkout",
            "folder": str(PACKAGE),
        },
        "software": {
            "python": f"{platform.python_version()} ({sys.executable})",
            "torch": f"{torch.__version__}, {_torch_accelerator()}",
            **{name: _installed_version(name) for name in PACKAGES},
            "platform": f"{platform.platform()} (glibc {platform.libc_ver()[1] or 'none'})",
        },
        "hardware": {
            "cpu": _cpu_name(),
            "cpu capability": torch.backends.cpu.get_cpu_capability(),
            "cpu threads": f"{torch.get_num_threads()} of {os.cpu_count()} logical cores",
            **gpus(),
        },
        "build": _build_lines(build_info()),
        **{f"ops on {device}": served for device, served in backends().items()},
    }


def git_revision() -> str | None:
    """Return the commit of the checkout that this package runs from, ``-dirty`` if edited since.

    None where the package is not run from a checkout or git is not installed.
    """
    if not (ROOT / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(ROOT),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def gpus() -> dict[str, str]:
    """Return one line for each CUDA device: name, compute capability, memory in GiB."""
    if not torch.cuda.is_available():
        return {"gpu": "none"}
    lines = {}
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        memory = device.total_memory / 2**30
        lines[f"gpu {index}"] = f"{device.name}, sm_{device.major}{device.minor}, {memory:.0f} GiB"
    return lines


def main(args: Sequence[str] | None = None) -> int:
    """Print the report and return the exit code: 0, or 2 after an argument, which it does not take.

    It needs no extra: a report is wanted most where something is missing.
    """
    given = list(sys.argv[1:] if args is None else args)
    if given and given[0] in ("-h", "--help"):
        print(f"usage: {shlex.join(words_of(_MODULE))}\n\nPrint {COMMANDS['env_report'][6:]}.")
        return 0
    if given:
        print(f"error: unknown argument {given[0]!r}: the report takes none", file=sys.stderr)
        return EXIT_USAGE
    _print(report())
    return 0


def _print(sections: dict[str, dict[str, str]]) -> None:
    wide = max(len(name) for lines in sections.values() for name in lines)
    text = ""
    for section, lines in sections.items():
        text += "".join((f"{section}\n", *(f"  {n:<{wide}} {v}\n" for n, v in lines.items())))
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:  # `| head` has read what it wanted; Python would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _torch_accelerator() -> str:
    if torch.version.cuda is not None:
        return f"CUDA {torch.version.cuda}"
    return f"ROCm {torch.version.hip}" if torch.version.hip is not None else "CPU build"


def _installed_version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _build_lines(info: BuildInfo) -> dict[str, str]:
    if info.extension is None:
        return {"extension": f"none: {info.reason}"}
    return {
        "extension": info.extension,
        "backends": ", ".join(info.backends) or "none compiled",
        "instruction sets": ", ".join(("portable", *info.instruction_sets)),
        "instruction set in use": info.instruction_set,
        "compiler": f"{info.compiler} ({info.flags})",
        "python": f"{info.python_target} and later" if info.python_target else "this one alone",
        "torch": f"built with {info.torch_version}, loads in {info.torch_target} and later",
        "cuda": f"{info.cuda_version} ({', '.join(info.cuda_archs)})"
        if info.cuda_version
        else "no",
    }

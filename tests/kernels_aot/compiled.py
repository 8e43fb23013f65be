"""Compile what a launcher would launch, for a GPU that is not there, and read its machine code."""

import re
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Compiled(NamedTuple):
    """One compiled kernel: its name, registers, spilled and local bytes, and SASS."""

    name: str
    registers: int
    stack: int
    local: int
    sass: str

    def count(self, instruction: str) -> int:
        """How many times an instruction occurs."""
        return len(re.findall(rf"\b{re.escape(instruction)}\b", self.sass))


class AbsentGpu:
    """A driver that only knows which GPU it stands for: 90 of NVIDIA, or "gfx942" of AMD."""

    def __init__(self, architecture: int | str) -> None:
        self.architecture = architecture
        nvidia = isinstance(architecture, int)
        self.target = GPUTarget("cuda" if nvidia else "hip", architecture, 32 if nvidia else 64)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int | str:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0


def cuobjdump(*arguments: str) -> str:
    """Output of the disassembler that Triton's package carries."""
    command = [str(TOOLS / "cuobjdump"), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@cache
def _inspect(name: str, cubin: bytes) -> Compiled:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = cuobjdump("-res-usage", file.name)
        sass = cuobjdump("-sass", file.name)
    registers, stack, local = (
        int(re.search(rf"{field}:(\d+)", usage)[1])  # type: ignore[index]
        for field in ("REG", "STACK", "LOCAL")
    )
    return Compiled(name, registers, stack, local, sass)


def compile_launches(
    launch: Callable[[], Any], capability: int, monkeypatch: pytest.MonkeyPatch
) -> list[Compiled]:
    """Call a launcher on meta tensors and return every kernel it would have launched."""
    found = compiled_for(capability, launch, monkeypatch)
    return [_inspect(name, kernel.asm["cubin"]) for name, kernel in found]


def compiled_for(
    architecture: int | str, launch: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, Any]]:
    """Return the name and what Triton compiled of every kernel that a launcher would launch.

    The arguments are specialised exactly as for a real launch (a size divisible by 16, one equal
    to 1, a None), because `JITFunction.run` itself does it; only the launch is left out.
    """
    kernels: list[tuple[str, Any]] = []
    run = JITFunction.run

    def compile_only(self: JITFunction[Any], *arguments: Any, grid: Any, **options: Any) -> None:
        options["warmup"] = True
        kernels.append((self.__name__, run(self, *arguments, grid=grid, **options)))

    triton.runtime.driver.set_active(AbsentGpu(architecture))
    with monkeypatch.context() as patch:
        patch.setattr(JITFunction, "run", compile_only)
        launch()
    return kernels

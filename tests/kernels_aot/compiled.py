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
    """A driver that only knows which GPU it stands for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return self.capability

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
    """Call a launcher on meta tensors and return every kernel it would have launched.

    The arguments are specialised exactly as for a real launch (a size divisible by 16, one equal
    to 1, a None), because `JITFunction.run` itself does it; only the launch is left out.
    """
    kernels: list[Compiled] = []
    run = JITFunction.run

    def compile_only(self: JITFunction[Any], *arguments: Any, grid: Any, **options: Any) -> None:
        options["warmup"] = True
        kernel = run(self, *arguments, grid=grid, **options)
        kernels.append(_inspect(self.__name__, kernel.asm["cubin"]))

    triton.runtime.driver.set_active(AbsentGpu(capability))
    with monkeypatch.context() as patch:
        patch.setattr(JITFunction, "run", compile_only)
        launch()
    return kernels

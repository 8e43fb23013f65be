"""Run jobs of mutants.py, each in a copy of this process: torch and pytest are imported once.

A job's exit code and output are left in NUMBER.code and NUMBER.txt of a folder.
"""

import collections
import ctypes
import importlib
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import hypothesis.strategies  # noqa: F401 - what tests import, the copies have
import pytest
import torch

OPTIONS = ("-xq", "-p", "no:cacheprovider", "-p", "no:xdist", "--import-mode=importlib")
Job = tuple[str, int, str, str]  # its name, a mutant's number or 0, a module of tests, which


def main(library: str, folder: Path, jobs: list[Job]) -> None:
    """Run as many at a time as there are cores; a thread beside would not live in the copies."""
    torch.set_num_threads(1)
    torch.ops.load_library(library)
    stand_in: Any = types.ModuleType("entprop_fast._C")
    stand_in.__file__ = library
    stand_in.build_info = lambda: collections.defaultdict(str, backends="cpu")
    sys.modules["entprop_fast._C"] = stand_in
    importlib.import_module("conftest")  # and the ops, which find the stand-in
    running: dict[int, int] = {}
    for number, job in enumerate(jobs):
        if len(running) == os.cpu_count():
            _await(running, folder)
        child = os.fork()
        if not child:
            _run(job, library, folder / f"{number}.txt")
        running[child] = number
    while running:
        _await(running, folder)


def _await(running: dict[int, int], folder: Path) -> None:
    """Wait for a copy to end, and note how."""
    child, status = os.wait()
    (folder / f"{running.pop(child)}.code").write_text(str(os.waitstatus_to_exitcode(status)))


def _run(job: Job, library: str, out: Path) -> None:
    """Be one job, and end."""
    code = 100
    try:
        for stream in (1, 2):
            os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        _, mutant, module, tests = job
        ctypes.c_int.in_dll(ctypes.CDLL(library), "entprop_mutant").value = mutant
        chosen = f"cpp and ({tests})"
        code = int(pytest.main([f"tests/ops/{module}.py", "-k", chosen, *OPTIONS]))
        sys.stdout.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))

"""A contender in a process of its own, which takes its step when it is told to.

Each has its own memory allocator, compiler caches and patches, and its own peak memory; the steps
of all of them still take turns on the machine.
"""

import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch._C._autograd import DeviceType

from bench.step.contenders import CONTENDERS, Contender, Setting

CHECKED_STEPS = 2


class Start(NamedTuple):
    """What a worker says once it can be timed."""

    losses: list[tuple[float, float]]  # of the first CHECKED_STEPS steps: main and auxiliary
    launches: int | None  # kernels of a step; None on the CPU


class Worker:
    """The parent's side of a contender's process; a context manager.

    Args:
        contender: what to run.
        setting: on what.
        threads: CPU threads of the process.
    """

    def __init__(self, contender: Contender, setting: Setting, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        arguments = (child, contender.name, setting, threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        child.close()

    def start(self) -> Start:
        """Build the contender and take its first steps.

        Raises:
            RuntimeError: the contender failed; the message is the child's.
        """
        return Start(*self._ask("start"))

    def seconds(self) -> float:
        """Take one step and return its time."""
        return float(self._ask("step"))

    def peak_memory(self) -> int:
        """Bytes that the steps added at most: to the process, or allocated on the device."""
        return int(self._ask("memory"))

    def _ask(self, what: str) -> Any:
        self._pipe.send(what)
        try:
            ok, answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the process died, exit code {self._process.exitcode}") from None
        if not ok:
            raise RuntimeError(answer)
        return answer

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, name: str, setting: Setting, threads: int) -> None:
    torch.set_num_threads(threads)
    served: _Served | None = None
    while True:
        what = pipe.recv()
        try:
            if served is None:
                served = _Served(next(c for c in CONTENDERS if c.name == name), setting)
            pipe.send((True, getattr(served, what)()))
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


class _Served:
    """The child's side."""

    def __init__(self, contender: Contender, setting: Setting) -> None:
        self._cuda = setting.device == "cuda"
        self._run = contender.build(setting)
        self._before = self._memory()

    def start(self) -> tuple[list[tuple[float, float]], int | None]:
        losses = [self._run() for _ in range(CHECKED_STEPS)]
        found = [(float(main), float(aux)) for main, aux in losses]
        for _ in range(3 if self._cuda else 0):  # capture and autotuning come after some steps
            self._run()
        launches = self._launches() if self._cuda else None
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        return found, launches

    def step(self) -> float:
        start = time.perf_counter()
        self._run()
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def memory(self) -> int:
        return self._memory() - (0 if self._cuda else self._before)

    def _memory(self) -> int:
        if self._cuda:
            return torch.cuda.max_memory_allocated()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def _launches(self) -> int:
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            self._run()
            torch.cuda.synchronize()
        events = profile.events() or []
        return sum(e.device_type == DeviceType.CUDA for e in events)

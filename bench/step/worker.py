"""Run a contender in a process of its own, which takes its steps when it is told to.

Each has its own memory allocator, compiler caches and patches, and its own peak memory; the steps
of all of them still take turns on the machine.
"""

import gc
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from bench.step.contenders import CONTENDERS, Contender, Setting

CHECKED_STEPS = 2
# On CUDA several steps follow each other before the clock stops, as in training: the host may run
# ahead of the device.
STEPS_IN_A_ROW = 5
LONG_ENOUGH = 0.1  # seconds, of steps in a row


class Start(NamedTuple):
    """Hold what a worker says once it can be timed."""

    losses: list[tuple[float, float]]  # of the first CHECKED_STEPS steps: main and auxiliary
    launches: int | None  # kernels of a step; None on the CPU


class Worker:
    """Start and ask a contender's process.

    Args:
        contender: what to run.
        threads: CPU threads of the process.
    """

    def __init__(self, contender: Contender, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, child = context.Pipe()
        arguments = (child, contender.name, threads)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        child.close()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.is_alive()

    def prepare(self, setting: Setting) -> None:
        """Have the contender built for a setting and its first steps taken; does not wait."""
        self._pipe.send(("start", setting))

    def start(self) -> Start:
        """Wait until what was prepared is ready.

        Raises:
            RuntimeError: the contender failed; the message is the child's.
        """
        return Start(*self._answer())

    def seconds(self) -> float:
        """Take steps and return the time of one."""
        return float(self._ask("step"))

    def peak_memory(self) -> int:
        """Return the bytes that the steps added at most: to the process, or on the device."""
        return int(self._ask("memory"))

    def _ask(self, what: str) -> Any:
        self._pipe.send((what,))
        return self._answer()

    def _answer(self) -> Any:
        try:
            ok, answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"the process died, exit code {self._process.exitcode}") from None
        if not ok:
            raise RuntimeError(answer)
        return answer

    def stop(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection, name: str, threads: int) -> None:
    torch.set_num_threads(threads)
    contender = next(c for c in CONTENDERS if c.name == name)
    served: _Served | None = None
    while True:
        what, *arguments = pipe.recv()
        try:
            if what == "start":
                served = None  # its memory first
                served = _Served(contender, *arguments)
            pipe.send((True, getattr(served, what)()))
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


class _Served:
    """Take a contender's steps at a setting, in its process."""

    def __init__(self, contender: Contender, setting: Setting) -> None:
        self._cuda = setting.device == "cuda"
        if self._cuda:
            gc.collect()
            torch.cuda.empty_cache()
        torch.compiler.reset()
        self._run = contender.build(setting)
        self._in_a_row = STEPS_IN_A_ROW if self._cuda else 1
        self._before = self._memory()

    def start(self) -> tuple[list[tuple[float, float]], int | None]:
        losses = [self._run() for _ in range(CHECKED_STEPS)]
        found = [(float(main), float(aux)) for main, aux in losses]
        if self._cuda:
            # Before the capture: replays use what it took, which no allocation shows again.
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        for _ in range(3 if self._cuda else 0):  # capture and autotuning come after some steps
            self._run()
        return found, self._launches() if self._cuda else None

    def step(self) -> float:
        start = time.perf_counter()
        for _ in range(self._in_a_row):
            self._run()
        if self._cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - start) / self._in_a_row
        if seconds * self._in_a_row > 2 * LONG_ENOUGH:
            self._in_a_row = max(1, round(LONG_ENOUGH / seconds))
        return seconds

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
        return sum(e.device_type.name == "CUDA" for e in events)

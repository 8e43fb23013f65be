"""Run a contender in a process of its own, which takes its steps when it is told to.

Each has its own memory allocator, compiler caches and patches, and its own peak memory; the steps
of all of them still take turns on the machine.
"""

import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch

from bench.step.contenders import BY_NAME, Contender, Setting
from bench.timing import give_back

CHECKED_STEPS = 2  # whose losses have to be the base's, up to rounding
# On CUDA these follow: a captured step is warm after three, the pipelined one's second shape after
# four, and the last one here is a replay.
MORE_STEPS = 4
# On CUDA several steps follow each other before the clock stops, as in training: the host may run
# ahead of the device.
STEPS_IN_A_ROW = 5
LONG_ENOUGH = 0.1  # seconds, of steps in a row


class Start(NamedTuple):
    """Hold what a worker says once it can be timed."""

    losses: list[tuple[float, float]]  # main and auxiliary, of the first steps
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

    def prepare(self, setting: Setting, *, at_once: bool) -> None:
        """Have the contender built for a setting; does not wait.

        Args:
            setting: the network, its batch, k and n.
            at_once: its first steps follow by themselves, and not only when `start` asks for them.
        """
        self._pipe.send(("build", setting, at_once))

    def start(self) -> Start:
        """Take the first steps of what was prepared, and wait for them.

        Raises:
            RuntimeError: the contender failed; the message is the child's.
        """
        begun = self._answer()
        return Start(*(self._ask("start") if begun is None else begun))

    def release(self) -> None:
        """Give back the memory of what was prepared, which takes no more steps."""
        self._ask("release")

    def seconds(self) -> float:
        """Take steps and return the time of one."""
        return float(self._ask("step"))

    def peak_memory(self) -> int:
        """Return the bytes that the steps add to the process, or that its allocator holds on CUDA.

        What the steps allocate would not show what a captured step keeps: the memory of its graph.
        What is held while they run, after all else was given back, shows that of every contender.
        """
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
    served: _Served | None = None
    while True:
        what, *arguments = pipe.recv()
        answer: Any = None
        try:
            if what in ("build", "release"):
                served = None  # its memory first
                give_back()
            if what == "build":
                setting, at_once = arguments
                served = _Served(BY_NAME[name], setting)
                answer = served.start() if at_once else None
            elif what != "release":
                answer = getattr(served, what)()
            pipe.send((True, answer))
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


class _Served:
    """Take a contender's steps at a setting, in its process."""

    def __init__(self, contender: Contender, setting: Setting) -> None:
        self._cuda = setting.device == "cuda"
        torch.compiler.reset()
        self._run = contender.build(setting)
        self._in_a_row = STEPS_IN_A_ROW if self._cuda else 1
        self._before = self._memory()

    def start(self) -> tuple[list[tuple[float, float]], int | None]:
        found: list[tuple[float, float]] = []
        for _ in range(CHECKED_STEPS + (MORE_STEPS if self._cuda else 0)):
            main, aux = self._run()
            found.append((float(main), float(aux)))
        if not self._cuda:
            return found, None
        give_back()  # cuDNN's trials, and what only eager steps before a capture needed
        torch.cuda.reset_peak_memory_stats()
        return found, self._launches()

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
            return torch.cuda.max_memory_reserved()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def _launches(self) -> int:
        activities = [torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            self._run()
            torch.cuda.synchronize()
        events = profile.events() or []
        return sum(e.device_type.name == "CUDA" for e in events)

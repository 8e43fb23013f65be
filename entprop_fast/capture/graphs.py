"""Make the CUDA calls behind a capture: a side stream, a memory pool, begin, end and replay."""

import contextlib
import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch

from entprop_fast.torch_internals import end_allocation_to_pool, stale_streams_redirected

T = TypeVar("T")


class Graph(Protocol):
    """A captured step."""

    def replay(self) -> None:
        """Run it on the current stream."""


class Graphs(Protocol):
    """Declare what a device offers for capturing steps."""

    def eager(self, run: Callable[[], T]) -> T:
        """Run eagerly, where a later capture will find handles and workspaces ready."""

    def watched(self, run: Callable[[], T]) -> tuple[T, str | None]:
        """Run as `eager` does; say where `run` waited for the device, None if it did not."""

    def capture(self, run: Callable[[], T], generator: torch.Generator | None) -> tuple[Graph, T]:
        """Record `run`, which then has not been executed, and return what it returned.

        Whatever `run` raises is raised again, with the device as it was.
        """


class CudaGraphs:
    """`torch.cuda.CUDAGraph`s of one device, in one memory pool.

    All of them replay on the caller's stream, one after the other, and what each hands out stays
    alive, so they may share the memory of everything else. A pool ends with its last graph.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        if device.index is not None:
            self.device = device
        with torch.cuda.device(self.device):
            self._stream = torch.cuda.Stream()
        self._pool: Any = None  # what `torch.cuda.graph_pool_handle` gives
        self._alive: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()  # in the pool

    def eager(self, run: Callable[[], T]) -> T:
        """Run on the stream that captures: cuBLAS and cuDNN keep their workspaces by stream."""
        outer = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(outer)
        try:
            with torch.cuda.stream(self._stream):
                return run()
        finally:
            outer.wait_stream(self._stream)

    def watched(self, run: Callable[[], T]) -> tuple[T, str | None]:
        """Run as `eager` does and collect torch's warnings about synchronising calls."""
        mode = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                result = self.eager(run)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        found = None
        for warning in caught:
            if "synchronizing CUDA operation" in str(warning.message):
                found = found or f"{warning.filename}:{warning.lineno}"
            elif "debug mode is a prototype" not in str(warning.message):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
        return result, found

    def capture(self, run: Callable[[], T], generator: torch.Generator | None) -> tuple[Graph, T]:
        """Record on the side stream; the device's default generator is registered by torch."""
        graph = torch.cuda.CUDAGraph()
        if generator is not None:
            graph.register_generator_state(generator)
        gc.collect()
        torch.cuda.synchronize(self.device)
        torch.cuda.empty_cache()  # what eager steps held is free for the graph's pool
        if not self._alive:
            with torch.cuda.device(self.device):
                self._pool = torch.cuda.graph_pool_handle()
        outer = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(outer)
        try:
            with torch.cuda.stream(self._stream), _no_collection(), _own_stream():
                # thread_local: a loader's thread may pin memory meanwhile.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                result = self._recorded(graph, run)
        except BaseException:
            self._recover(generator)
            raise
        outer.wait_stream(self._stream)
        self._alive.add(graph)
        return graph, result

    @staticmethod
    def _recorded(graph: torch.cuda.CUDAGraph, run: Callable[[], T]) -> T:
        try:
            result = run()
        except BaseException:
            with contextlib.suppress(RuntimeError):  # that the capture is invalid is known
                graph.capture_end()
            raise
        graph.capture_end()
        return result

    def _recover(self, generator: torch.Generator | None) -> None:
        """Undo what a failed capture leaves behind in torch 2.11: its own end stops half-way."""
        with contextlib.suppress(RuntimeError, TypeError):  # it did end
            end_allocation_to_pool(self.device.index, self._pool)
        self._alive.clear()  # the next capture gets a pool of its own
        default = torch.cuda.default_generators[self.device.index]
        for source in (default, generator):
            if source is not None:  # the same seed and offset, no longer marked as captured
                source.graphsafe_set_state(source.clone_state())
        torch.cuda.synchronize(self.device)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the cyclic collector from destroying another graph meanwhile, which CUDA forbids."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def _own_stream() -> Iterator[None]:
    """Let a parameter's gradient add up on the stream that captures, where torch can do that.

    The node that adds it belongs to the stream on which it was made, and lives as long as any loss
    that it served; CUDA forbids to go there and back while capturing.
    """
    before = stale_streams_redirected()
    if before is None:
        yield
        return
    torch.autograd.graph.set_override_stale_capture_stream(True)
    try:
        yield
    finally:
        torch.autograd.graph.set_override_stale_capture_stream(before)


@contextlib.contextmanager
def timed_convolutions() -> Iterator[None]:
    """Let cuDNN choose by trial in the block, where nothing asks for convolutions that are fixed.

    What it has chosen for a shape it keeps, whatever the switch says later: a recording of the same
    shape runs it, and must not try others. A shape that ran before keeps what it had.
    """
    fixed = torch.are_deterministic_algorithms_enabled() or torch.backends.flags_frozen()
    if fixed or torch.backends.cudnn.deterministic or torch.backends.cudnn.benchmark:
        yield
        return
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False


# Device type to what captures there; steps on any other run eagerly.
GRAPHS: dict[str, Callable[[torch.device], Graphs]] = {"cuda": CudaGraphs}

"""Record the passes of a training method as a graph, and replay them in a step or a backward."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from entprop_fast.capture.fused_sums import fuse_sums
from entprop_fast.capture.graphs import Graph, Graphs
from entprop_fast.capture.result_copy import ResultCopy
from entprop_fast.torch_internals import add_each

ResultT = TypeVar("ResultT", bound=tuple[Tensor, ...])
ResultT_co = TypeVar("ResultT_co", bound=tuple[Tensor, ...], covariant=True)
Gradients = list[tuple[Tensor, Tensor | None]]


class Steps(Protocol[ResultT_co]):
    """Declare a training method, as a capture sees it."""

    model: nn.Module
    criterion: nn.Module | None
    optimizer: Optimizer
    generator: torch.Generator | None
    capture: Literal["auto", "on", "off"]
    cudnn_benchmark: bool
    rows: int
    _graph_key: ClassVar[tuple[str, ...]]  # attributes: a captured step belongs to their values

    def _run_passes(
        self,
        images: Tensor,
        labels: Tensor,
        weight: float = 1.0,
        *,
        before_backward: Callable[[Tensor], None],
    ) -> ResultT_co:
        """Add the gradients of an accepted batch: nothing but operations on the device.

        `before_backward` is called with the loss of each pass that the weights learn from. State
        that the method carries to the next step is changed in place; an attribute that it sets is
        set again by a replay, to the graph's own tensor.
        """

    def apply_gradients(self) -> None:
        """Clip, and take the optimiser's step: nothing but operations on the device."""

    def _exchange(self, images: Tensor) -> contextlib.AbstractContextManager[None]:
        """Surround the passes by what the processes exchange, which no graph holds."""

    def _averages(self) -> bool:
        """Return whether something is exchanged between the passes and the optimiser's step."""

    def why_not_captured(self) -> str | None:
        """Return what other processes take part in within the passes, which no graph can hold."""

    def _eager_step(self, images: Tensor, labels: Tensor) -> ResultT_co:
        """Take a step, or refuse the first batch of a shape and change nothing."""

    def _eager_backward(self, images: Tensor, labels: Tensor, weight: float) -> ResultT_co:
        """Take its passes and exchange gradients, or refuse, as `_eager_step` does."""


@dataclass
class Recorded(Generic[ResultT]):
    """Hold one shape's graphs: what they read, and what a replay leaves in their memory.

    Attributes:
        passes: from no gradients to those of the batch; with the update, where nothing is
            exchanged before it.
        update: the clipping and the optimiser's step, where it is a graph of its own.
    """

    passes: Graph
    update: Graph | None
    images: Tensor
    labels: Tensor
    result: ResultCopy[ResultT]
    gradients: Gradients
    attributes: dict[str, Any]
    rows: int

    def replay_step(self, steps: Steps[ResultT], images: Tensor, labels: Tensor) -> ResultT:
        """Take a step on a batch of this shape."""
        with steps._exchange(images):
            self._replay_passes(images, labels)
            for parameter, gradient in self.gradients:
                if parameter.grad is not gradient:
                    parameter.grad = gradient
        if self.update is not None:
            self.update.replay()
        return self._results(steps)

    def replay_backward(self, steps: Steps[ResultT], images: Tensor, labels: Tensor) -> ResultT:
        """Add this batch's gradients to `.grad`; where there is none, it becomes the graph's own.

        That is overwritten by the next replay, so it moves out before it is added to.
        """
        with steps._exchange(images):
            for parameter, gradient in self.gradients:
                if gradient is not None and parameter.grad is gradient:
                    parameter.grad = gradient.clone()
            self._replay_passes(images, labels)
            sums: list[Tensor] = []
            added: list[Tensor] = []
            for parameter, gradient in self.gradients:
                if gradient is None:
                    continue
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    sums.append(parameter.grad)
                    added.append(gradient)
            if sums:
                add_each(sums, added)
        return self._results(steps)

    def _replay_passes(self, images: Tensor, labels: Tensor) -> None:
        self.images.copy_(images.detach(), non_blocking=True)
        self.labels.copy_(labels, non_blocking=True)
        self.passes.replay()

    def _results(self, steps: Steps[ResultT]) -> ResultT:
        vars(steps).update(self.attributes)
        steps.rows += self.rows
        return self.result.copy()


def record(
    graphs: Graphs,
    steps: Steps[ResultT],
    images: Tensor,
    labels: Tensor,
    *,
    weight: float,
    steps_too: bool,
) -> Recorded[ResultT]:
    """Record the passes, and the optimiser's step where `steps_too`; nothing is executed.

    What `.grad` holds is discarded where the optimiser steps, and stays as it was where not.

    Raises:
        Exception: whatever stands against it; the state is as it was.
    """
    images, labels = images.detach().clone(), labels.clone()
    whole = steps_too and not steps._averages()

    before = dict(vars(steps))
    with _gradients_back(steps, drop=steps_too):
        try:
            graph, (result, gradients) = graphs.capture(
                lambda: run_passes(steps, images, labels, weight, update=whole), steps.generator
            )
            after = dict(vars(steps))
            update: Graph | None = None
            if steps_too and not whole:
                update, _ = graphs.capture(steps.apply_gradients, None)
        finally:
            vars(steps).update(before)
    rows = after.pop("rows") - before["rows"]
    attributes = {name: v for name, v in after.items() if v is not before.get(name)}
    return Recorded(graph, update, images, labels, result, gradients, attributes, rows)


def run_passes(
    steps: Steps[ResultT], images: Tensor, labels: Tensor, weight: float = 1.0, *, update: bool
) -> tuple[ResultCopy[ResultT], Gradients]:
    """Do what one graph holds: all passes, from no gradients, and with `update` the step, too."""
    for parameter in _parameters(steps):
        parameter.grad = None
    result = steps._run_passes(images, labels, weight, before_backward=fuse_sums)
    if update:
        steps.apply_gradients()
    return ResultCopy(result), [(p, p.grad) for p in _parameters(steps)]


@contextlib.contextmanager
def _gradients_back(steps: Steps[ResultT], *, drop: bool) -> Iterator[None]:
    """Put back the gradients from before the block, or drop them, so that no two sets lie there."""
    held = [(p, None if drop else p.grad) for p in _parameters(steps)]
    for parameter, _ in held:
        parameter.grad = None
    torch.clear_autocast_cache()  # weights cast before would be read as they were, for ever
    try:
        yield
    finally:
        torch.clear_autocast_cache()  # weights cast while capturing have no values yet
        for parameter, gradient in held:
            parameter.grad = gradient


def _parameters(steps: Steps[ResultT]) -> dict[Tensor, None]:
    """Return all parameters that may get a gradient, each once."""
    roots = [root for root in (steps.model, steps.criterion) if root is not None]
    learned = [parameter for root in roots for parameter in root.parameters()]
    held = [p for group in steps.optimizer.param_groups for p in group["params"]]
    return dict.fromkeys([*learned, *held])

"""Decide when a training step runs eagerly, when it is captured and when it is replayed."""

import warnings
import weakref
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim import Optimizer

from entprop_fast.capture import graphs
from entprop_fast.capture.frozen import Frozen, Hooks
from entprop_fast.capture.graphs import Graph, Graphs
from entprop_fast.capture.optimizer import CapturableForm, why_not_capturable
from entprop_fast.capture.result_copy import ResultCopy
from entprop_fast.sharding import is_sharded

WARM_UP = 3  # eager steps at a shape before its capture: cuDNN has chosen, Triton has compiled
SETTLE = 1  # after a change: a new parameter's optimiser state must exist before the capture
RETURNS_WITHIN = 64  # calls; a rarer shape (an epoch's last batch) does not earn a graph
MAX_GRAPHS = 4  # each keeps a set of gradients and a batch beside the memory that all share
SHORT_LIFE = 8  # replays; a graph that lives no longer than this
SHORT_LIVES = 3  # so many times in a row has cost more than it saved

Key = tuple[torch.Size, tuple[int, ...], torch.dtype, torch.device, tuple[Any, ...]]
ResultT = TypeVar("ResultT", bound=tuple[Tensor, ...])
ResultT_co = TypeVar("ResultT_co", bound=tuple[Tensor, ...], covariant=True)


class Steps(Protocol[ResultT_co]):
    """A training method, as a capture sees it."""

    model: nn.Module
    criterion: nn.Module | None
    optimizer: Optimizer
    generator: torch.Generator | None
    capture: Literal["auto", "on", "off"]
    rows: int
    _graph_key: ClassVar[tuple[str, ...]]  # attributes: a captured step belongs to their values

    def _step(self, images: Tensor, labels: Tensor) -> ResultT_co:
        """Take one optimiser step on an accepted batch: nothing but operations on the device.

        State that it carries to the next step is changed in place; an attribute that it sets is
        set again by a replay, to the graph's own tensor.
        """

    def why_not_captured(self) -> str | None:
        """Return what no graph can hold of a step, or None."""

    def _eager_step(self, images: Tensor, labels: Tensor) -> ResultT_co:
        """Take the same step, or refuse the first batch of a shape and change nothing."""


@dataclass
class _Captured(Generic[ResultT]):
    """One shape's graph: what it reads, and what its replay leaves in its memory."""

    graph: Graph
    images: Tensor
    labels: Tensor
    result: ResultCopy[ResultT]
    gradients: list[tuple[Tensor, Tensor | None]]
    attributes: dict[str, Any]
    rows: int


class _Shape(Generic[ResultT]):
    """Hold what is known about batches of one key: shape, layout, dtype, the method's part."""

    def __init__(self, images: Tensor, now: int) -> None:
        self.left, self.seen = WARM_UP, now  # eager steps before the capture; last call
        # A graph's input is dense; the warm-up runs on what it will run on.
        self.dense = torch.empty_like(images).stride() == images.stride()
        self.captured: _Captured[ResultT] | None = None


class StepCapture(Generic[ResultT]):
    """Runs a method's steps: eagerly, or as a replay of the one that it captured at their shape.

    Args:
        steps: the method; its `capture` says "auto", "on" or "off".

    Attributes:
        replays: steps that were replayed so far.
        why_eager: why no step will be captured any more, or None.
    """

    def __init__(self, steps: Steps[ResultT]) -> None:
        self._steps: Steps[ResultT] = weakref.proxy(steps)  # which holds this
        self._graphs: Graphs | None = None
        self._form: CapturableForm | None = None
        self._shapes: dict[Key, _Shape[ResultT]] = {}
        self._frozen: Frozen | None = None  # what all graphs agree with
        self._calls = self._lived = self._short_lives = 0
        self._told_full = False
        self.replays = 0
        self.why_eager: str | None = None

    def check(self) -> None:
        """Refuse what no step could be captured with, where that is known before the first.

        Raises:
            ValueError: `capture` is "on" and model or optimizer cannot be captured.
        """
        if self._steps.capture == "on":
            parameter = next(self._steps.model.parameters(), None)
            device = torch.device("cpu") if parameter is None else parameter.device
            if reason := self._why_not(device):
                raise ValueError(f"capture='on': {reason}")

    def __call__(self, images: Tensor, labels: Tensor) -> ResultT:
        """Take one step on a batch whose shape, dtypes and devices were accepted.

        Raises:
            RuntimeError: `capture` is "on" and the step cannot be captured; it was not taken.
        """
        if not self._active(images.device):
            return self._steps._eager_step(images, labels)
        assert self._graphs is not None and self._form is not None
        self._form.restore()
        self._calls += 1
        self._check_frozen()
        if self.why_eager is not None:
            return self._steps._eager_step(images, labels)
        own = tuple(map(vars(self._steps).get, self._steps._graph_key))
        key = (images.shape, images.stride(), images.dtype, images.device, own)
        shape = self._shapes.get(key)
        if shape is None or (not shape.captured and self._calls - shape.seen > RETURNS_WITHIN):
            shape = self._shapes[key] = _Shape(images, self._calls)
        shape.seen = self._calls
        if shape.captured is None and (shape.left > 0 or not self._room()):
            return self._warm_up(shape, images, labels)
        if shape.captured is None:
            shape.captured = self._capture(images, labels)
        if shape.captured is None:
            return self._steps._eager_step(images, labels)
        return self._replay(shape.captured, images, labels)

    def forget(self) -> None:
        """Drop every graph; the coming steps warm up and are captured anew.

        For changes that steps are not compared by: see docs/capture.md.
        """
        self._shapes.clear()
        self._frozen = None
        self._lived = 0

    def _active(self, device: torch.device) -> bool:
        """Return whether steps on `device` go through here; prepare the first one."""
        if self._steps.capture == "off":
            self.forget()
            return False
        if self.why_eager is not None:
            if self._steps.capture == "on":
                raise RuntimeError(f"capture='on': {self.why_eager}")
            return False
        if self._form is not None and self._form.optimizer is self._steps.optimizer:
            if device == self._form.device:
                return True
        self.forget()
        if reason := self._why_not(device):
            if device.type in graphs.GRAPHS or self._steps.capture == "on":
                self._end(reason)
            return False
        self._graphs = graphs.GRAPHS[device.type](device)
        self._form = CapturableForm(self._steps.optimizer, device)
        return True

    def _why_not(self, device: torch.device) -> str | None:
        if reason := self._steps.why_not_captured():
            return reason
        if any(map(is_sharded, self._steps.model.modules())):
            return "fully_shard gathers the parameters in every pass: collectives are not captured"
        if device.type not in graphs.GRAPHS:
            return f"the model is on {device}: a CUDA graph needs a CUDA device"
        if dist.is_available() and dist.is_initialized():
            return "a process group is initialised: collectives are not captured"
        if reason := why_not_capturable(self._steps.optimizer, device):
            return reason
        if place := Hooks(self._steps).find():
            return f"{place} has a hook, which a replayed step would not run"
        return None

    def _check_frozen(self) -> None:
        """Drop the graphs if they no longer agree with the host's values."""
        if self._frozen is None:
            return
        if place := self._frozen.hook():
            self._end(f"{place} has a hook, which a replayed step would not run")
            return
        changed = self._frozen.difference()
        if changed is None:
            return
        self._short_lives = self._short_lives + 1 if self._lived <= SHORT_LIFE else 0
        if self._short_lives == SHORT_LIVES:
            self._end(f"{changed} changes every few steps, and a captured step keeps it as it was")
            return
        self._frozen, self._lived = None, 0
        for shape in self._shapes.values():
            if shape.captured is not None:
                shape.captured, shape.left = None, SETTLE

    def _room(self) -> bool:
        if sum(shape.captured is not None for shape in self._shapes.values()) < MAX_GRAPHS:
            return True
        if not self._told_full:
            self._told_full = True
            _warn(f"batches of {MAX_GRAPHS} shapes are captured; those of others run eagerly")
        return False

    def _warm_up(self, shape: _Shape[ResultT], images: Tensor, labels: Tensor) -> ResultT:
        assert self._graphs is not None
        given = images if shape.dense else images.detach().clone()
        if shape.left != 1:
            result = self._graphs.eager(lambda: self._steps._eager_step(given, labels))
        else:
            result, place = self._graphs.watched(lambda: self._steps._eager_step(given, labels))
            if place is not None:
                self._end(f"the step waits for the device, at {place}", taken=True)
        shape.left = max(shape.left - 1, 0)
        return result

    def _capture(self, images: Tensor, labels: Tensor) -> _Captured[ResultT] | None:
        """Record the step; nothing is executed, so whatever happens the state is exact."""
        steps = self._steps
        assert self._graphs is not None
        if reason := self._why_not(images.device):
            self._end(reason)
            return None
        static = (images.detach().clone(), labels.clone())
        before = dict(vars(steps))
        # Here rather than in the graph, so that eager gradients do not lie beside captured ones.
        steps.optimizer.zero_grad(set_to_none=True)
        torch.clear_autocast_cache()  # weights cast before would be read as they were, for ever
        try:
            graph, (result, gradients) = self._graphs.capture(
                lambda: self._run(*static), steps.generator
            )
            after = dict(vars(steps))
        except Exception as error:
            self._end(f"capturing the step failed ({_first_line(error)})", error)
            return None
        finally:
            vars(steps).update(before)
            torch.clear_autocast_cache()  # weights cast while capturing have no values yet
        rows = after.pop("rows") - before["rows"]
        attributes = {name: v for name, v in after.items() if v is not before.get(name)}
        if self._frozen is None:
            no_options = {"rows", *steps._graph_key, *attributes}
            self._frozen = Frozen(steps, no_options, images.device.type)
        return _Captured(graph, *static, result, gradients, attributes, rows)

    def _run(
        self, images: Tensor, labels: Tensor
    ) -> tuple[ResultCopy[ResultT], list[tuple[Tensor, Tensor | None]]]:
        result = self._steps._step(images, labels)
        groups = self._steps.optimizer.param_groups
        return ResultCopy(result), [(p, p.grad) for group in groups for p in group["params"]]

    def _replay(self, captured: _Captured[ResultT], images: Tensor, labels: Tensor) -> ResultT:
        captured.images.copy_(images.detach(), non_blocking=True)
        captured.labels.copy_(labels, non_blocking=True)
        captured.graph.replay()
        for parameter, gradient in captured.gradients:
            if parameter.grad is not gradient:
                parameter.grad = gradient
        vars(self._steps).update(captured.attributes)
        self._steps.rows += captured.rows
        self.replays += 1
        self._lived += 1
        return captured.result.copy()

    def _end(self, reason: str, cause: Exception | None = None, *, taken: bool = False) -> None:
        """Capture no more: warn once, or with "on" raise; if `taken`, at the next step."""
        self.forget()
        self._graphs = self._form = None
        self.why_eager = reason
        if self._steps.capture != "on":
            _warn(f"steps are not captured: {reason}; they run eagerly")
        elif not taken:
            raise RuntimeError(f"capture='on': {reason}") from cause


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=6)  # whoever called the method


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

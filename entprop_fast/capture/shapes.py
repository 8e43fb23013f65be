"""Decide when a call of a method runs eagerly, when it is captured and when it is replayed."""

import contextlib
import gc
import warnings
import weakref
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from entprop_fast.capture import graphs
from entprop_fast.capture.frozen import Frozen, Hooks, named_modules, named_tensors
from entprop_fast.capture.graphs import Graphs
from entprop_fast.capture.held_graphs import describe_holder
from entprop_fast.capture.optimizer import CapturableForm, why_not_capturable
from entprop_fast.capture.recorded import Recorded, Steps, record

WARM_UP = 3  # eager steps at a shape before its capture: cuDNN has chosen, Triton has compiled
SETTLE = 1  # after a change: a new parameter's optimiser state must exist before the capture
MAX_GRAPHS = 4  # each keeps a set of gradients and a batch beside the memory that all share
MAX_SHAPES = 256  # remembered; more than MAX_GRAPHS: the others are those not captured
SHORT_LIFE = 8  # replays; a graph that lives no longer than this
SHORT_LIVES = 3  # so many times in a row has cost more than it saved

ResultT = TypeVar("ResultT", bound=tuple[Tensor, ...])


class _Shape(Generic[ResultT]):
    """Hold what is known about batches of one key: shape, layout, dtype, the method's part."""

    def __init__(self, images: Tensor) -> None:
        self.left = WARM_UP  # eager steps before the capture
        # A graph's input is dense; the warm-up runs on what it will run on.
        self.dense = torch.empty_like(images).stride() == images.stride()
        self.captured: Recorded[ResultT] | None = None


class Capture(Generic[ResultT]):
    """Run one kind of call: eagerly, or as a replay of what was captured at the batch's shape.

    Args:
        steps: the method; its `capture` says "auto", "on" or "off".
        steps_too: the optimiser's step belongs to it; else the passes alone, as `Method.backward`
            takes them, whatever the optimiser is.

    Attributes:
        replays: calls that were replayed so far.
        why_eager: why none will be captured any more, or None.
    """

    def __init__(self, steps: Steps[ResultT], *, steps_too: bool) -> None:
        self._steps: Steps[ResultT] = weakref.proxy(steps)  # which holds this
        self._steps_too = steps_too
        self._graphs: Graphs | None = None
        self._device: torch.device | None = None  # of the graphs
        self._form: CapturableForm | None = None
        self._shapes: dict[tuple[Any, ...], _Shape[ResultT]] = {}
        self._frozen: Frozen | None = None  # what all graphs agree with
        self._lived = self._short_lives = 0
        self._told_full = False
        self.replays = 0
        self.why_eager: str | None = None

    def __call__(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> ResultT:
        """Take one call on a batch whose shape, dtypes and devices were accepted.

        Raises:
            RuntimeError: `capture` is "on" and the call cannot be captured; it was not taken.
        """
        if not self._active(images.device):
            return self._eager(images, labels, weight)
        assert self._graphs is not None
        if self._form is not None:
            self._form.restore()
        self._check_frozen()
        if self.why_eager is not None:
            return self._eager(images, labels, weight)
        own = tuple(map(vars(self._steps).get, self._steps._graph_key))
        layout = (images.shape, images.stride(), images.dtype, images.device)
        key = (*layout, own, weight, _processes())
        shape = self._shapes.pop(key, None)
        if shape is None:
            self._forget_oldest()
            shape = _Shape(images)
        self._shapes[key] = shape  # behind those that came before
        if shape.captured is None and (shape.left > 0 or not self._room()):
            return self._warm_up(shape, images, labels, weight)
        if shape.captured is None:
            shape.captured = self._capture(images, labels, weight)
        if shape.captured is None:
            return self._eager(images, labels, weight)
        replay = shape.captured.replay_step if self._steps_too else shape.captured.replay_backward
        result = replay(self._steps, images, labels)
        self.replays += 1
        self._lived += 1
        return result

    def _eager(self, images: Tensor, labels: Tensor, weight: float) -> ResultT:
        if self._steps_too:
            return self._steps._eager_step(images, labels)
        return self._steps._eager_backward(images, labels, weight)

    def _optimizer_is_same(self) -> bool:
        if not self._steps_too:
            return True
        return self._form is not None and self._form.optimizer is self._steps.optimizer

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
        if device == self._device and self._optimizer_is_same():
            return True
        self.forget()
        self._graphs = self._device = self._form = None
        if reason := self.why_not(device):
            if device.type in graphs.GRAPHS or self._steps.capture == "on":
                self._end(reason)
            return False
        self._graphs, self._device = graphs.GRAPHS[device.type](device), device
        if self._steps_too:
            self._form = CapturableForm(self._steps.optimizer, device)
        return True

    def why_not(self, device: torch.device) -> str | None:
        """Return why nothing can be captured there, as far as is known before it is tried."""
        if reason := self._steps.why_not_captured():
            return reason
        if device.type not in graphs.GRAPHS:
            return f"the model is on {device}: a CUDA graph needs a CUDA device"
        if self._steps_too and (reason := why_not_capturable(self._steps.optimizer, device)):
            return reason
        if place := Hooks(self._steps, of_optimizer=self._steps_too).find():
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

    def _forget_oldest(self) -> None:
        """Make room for what is known about a new key: weights or shapes may never come again."""
        if len(self._shapes) < MAX_SHAPES:
            return
        del self._shapes[next(k for k, shape in self._shapes.items() if shape.captured is None)]

    def _room(self) -> bool:
        if sum(shape.captured is not None for shape in self._shapes.values()) < MAX_GRAPHS:
            return True
        if not self._told_full:
            self._told_full = True
            _warn(f"batches of {MAX_GRAPHS} shapes are captured; those of others run eagerly")
        return False

    def _warm_up(
        self, shape: _Shape[ResultT], images: Tensor, labels: Tensor, weight: float
    ) -> ResultT:
        assert self._graphs is not None
        given = images if shape.dense else images.detach().clone()
        # Each new shape is another trial: not for a stream of them.
        timed = self._steps.cudnn_benchmark and len(self._shapes) <= MAX_GRAPHS
        place: str | None = None
        with graphs.timed_convolutions() if timed else contextlib.nullcontext():
            if shape.left != 1:
                result = self._graphs.eager(lambda: self._eager(given, labels, weight))
            else:
                result, place = self._graphs.watched(lambda: self._eager(given, labels, weight))
        if place is not None:
            self._end(f"the step waits for the device, at {place}", taken=True)
        shape.left = max(shape.left - 1, 0)
        return result

    def _capture(self, images: Tensor, labels: Tensor, weight: float) -> Recorded[ResultT] | None:
        """Record the call; nothing is executed, so whatever happens the state is exact."""
        steps = self._steps
        assert self._graphs is not None
        if reason := self.why_not(images.device):
            self._end(reason)
            return None
        once = partial(
            record, self._graphs, steps, images, labels, weight=weight, steps_too=self._steps_too
        )
        recorded: Recorded[ResultT] | None = None
        with contextlib.suppress(Exception):  # the second try tells
            recorded = once()
        if recorded is None:
            gc.collect()  # with the error went what its traceback kept alive
            held = describe_holder(named_tensors(named_modules(steps)))
            try:
                recorded = once()
            except Exception as error:
                perhaps = (
                    f"; perhaps because {held}: delete it before the first step" if held else ""
                )
                self._end(f"capturing the step failed ({_first_line(error)}){perhaps}", error)
                return None
        if self._frozen is None:
            # `_dealt`, how many rows each process has, is one with the shape where ranks are not
            # exact, and those are not captured.
            no_options = {"rows", "_dealt", *steps._graph_key, *recorded.attributes}
            self._frozen = Frozen(
                steps, no_options, images.device.type, with_optimizer=self._steps_too
            )
        return recorded

    def _end(self, reason: str, cause: Exception | None = None, *, taken: bool = False) -> None:
        """Capture no more: warn once, or with "on" raise; if `taken`, at the next step."""
        self.forget()
        self._graphs = self._device = self._form = None
        self.why_eager = reason
        if self._steps.capture != "on":
            what = "steps are" if self._steps_too else "method.backward is"
            eagerly = "they run" if self._steps_too else "it runs"
            _warn(f"{what} not captured: {reason}; {eagerly} eagerly")
        elif not taken:
            raise RuntimeError(f"capture='on': {reason}") from cause


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=7)  # whoever called the method


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

"""Refuse models and optimizers that a method cannot train, and notice when they are replaced.

The reads are C-level maps over lists made once, as those of `entprop_fast.capture.frozen`.
"""

import contextlib
import inspect
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.halves import Part, share_part, shared_parts
from entprop_fast.layers.routing import dual_layers
from entprop_fast.methods.common_options import FLOAT16
from entprop_fast.sharding import is_partitioned, is_sharded, is_split
from entprop_fast.torch_internals import buffers_of, children_of, parameters_of

_REQUIRES_GRAD = attrgetter("requires_grad")
_PARAMS = itemgetter("params")
_SHARED_PART: dict[str, Part] = {"affine": "statistics", "statistics": "affine"}  # the other


def check_kind(name: str, value: object, kind: type) -> None:
    """Check that `value` is an instance of `kind`.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, kind):
        expected = f"{kind.__module__}.{kind.__name__}"
        raise TypeError(f"{name} is a {type(value).__name__}: expected a {expected}")


def check_training(model: nn.Module) -> None:
    """Check that `model` is in training mode.

    Raises:
        ValueError: it is in eval mode.
    """
    if not model.training:
        raise ValueError("model is in eval mode: call model.train() first")


def check_dual(name: str, model: nn.Module) -> None:
    """Check that `model` has the dual norms that the method `name` needs.

    Raises:
        ValueError: it has none; the message says what to call.
    """
    try:
        dual_layers(model)
    except ValueError as error:
        raise ValueError(f"method {name!r} needs dual norms: {error}") from None


def prepare_halves(name: str, model: nn.Module, norms: str) -> None:
    """Let the halves of a model's norms share what `norms` says, and refuse a model of another.

    Args:
        name: of the method.
        model: converted, but for "shared".
        norms: "dual", "shared", "affine" (one set of statistics) or "statistics" (one affine).

    Raises:
        ValueError: the model has dual norms for "shared", or none for the others; its halves share
            what they should not, or have nothing to share.
    """
    layers = [module for module in model.modules() if isinstance(module, DualNorm)]
    if norms == "shared":
        if layers:
            raise ValueError(
                "norms='shared' sends every pass through the only norms of a plain model, and this "
                "one has dual norms: call strip_auxiliary(model) and make the optimizer after "
                "that, or use norms='dual'"
            )
        return
    check_dual(name, model)
    part = _SHARED_PART.get(norms)
    held = {one for layer in layers for one in shared_parts(layer)}
    if wrong := held - {part}:
        raise ValueError(
            f"norms={norms!r}: a method of other norms let the halves of this model share their "
            f"{wrong.pop()}: load its state into a network that convert_dual_norm(model) has just "
            "converted, and make the optimizer after that"
        )
    if part == "affine" and part not in held and is_sharded(model):
        raise ValueError(
            "norms='statistics' lets halves share parameters, which fully_shard has split: make "
            "the method first, on the whole model with another optimizer, then call fully_shard"
        )
    share_halves(model, norms)
    moves = any(buffer is not None for layer in layers for buffer in buffers_of(layer).values())
    if part is not None and not moves:
        raise ValueError(
            f"norms={norms!r}: no dual norm of the model has running statistics, of which halves "
            "would have one set or two: use norms='dual' or 'shared'"
        )


def share_halves(model: nn.Module, norms: str) -> None:
    """Let the halves of a model's norms share what `norms` says; all that do share it already."""
    if (part := _SHARED_PART.get(norms)) is not None:
        share_part(dual_layers(model), part)


def check_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, criterion: nn.Module | None
) -> None:
    """Check that `optimizer` holds every trainable parameter of `model` and `criterion`.

    Raises:
        ValueError: it lacks some, as when it was made before the conversion; it evaluates the loss
            by itself; it divides gradients by a scale that no loss was multiplied with; or it
            splits the states of parameters that are split already.
    """
    if getattr(optimizer, "scaler", None) is not None:  # accelerate's, under float16
        raise ValueError(
            f"optimizer is a {type(optimizer).__name__} with a gradient scaler: {FLOAT16}; use "
            "bfloat16 (mixed_precision='bf16', bf16=True), or float32"
        )
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    demanded = closure is not None and closure.default is inspect.Parameter.empty
    if demanded or hasattr(optimizer, "second_step"):  # SAM and its kin, which take two
        raise _needs_closure(optimizer)
    if is_partitioned(optimizer) and any(map(is_split, model.parameters())):
        raise ValueError(
            f"optimizer is a {type(optimizer).__name__}, and fully_shard has split the states "
            "along with the parameters: use SGD, AdamW or the like as it is"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    modules = {"model": model} | ({} if criterion is None else {"criterion": criterion})
    missing = [
        f"{owner}.{name}"
        for owner, module in modules.items()
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and id(parameter) not in held
    ]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ValueError(
            f"optimizer lacks {len(missing)} trainable parameters ({shown}): make it after "
            "convert_dual_norm(model), from model.parameters(), or freeze what is not to learn "
            "(requires_grad_(False))"
        )


@contextlib.contextmanager
def closures_refused(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Say what to do about an optimizer whose step, called inside, misses its closure.

    Raises:
        ValueError: it does.
    """
    try:
        yield
    except (AssertionError, TypeError) as error:
        known = "closure", "'NoneType' object is not callable"
        if str(error) and not any(words in str(error) for words in known):
            raise  # an assertion may have no words
        raise _needs_closure(optimizer) from error


def _needs_closure(optimizer: torch.optim.Optimizer) -> ValueError:
    return ValueError(
        f"optimizer is a {type(optimizer).__name__}, whose step needs a closure or is two steps: "
        "make the method with SGD, AdamW or the like (of SAM: its base_optimizer), and take that "
        "optimizer's steps yourself around method.backward(images, labels), which takes none"
    )


class AcceptedModules:
    """Remember the modules and parameters of a step, to notice that some were replaced.

    Args:
        model: the network.
        criterion: its loss, or None.
        optimizer: whose groups count.
    """

    def __init__(self, model: nn.Module, criterion: nn.Module | None, optimizer: Optimizer) -> None:
        self._roots = (model, criterion, optimizer)
        modules = [m for root in (model, criterion) if root is not None for m in root.modules()]
        self._registries: list[dict[str, Any]] = [
            registry for m in modules for registry in (children_of(m), parameters_of(m))
        ]
        # Alive, so that no other object can take over an id that is compared.
        self._held = self._entries()
        self._ids = list(map(id, self._held))
        self._learned = [entry for entry in self._held if isinstance(entry, nn.Parameter)]
        self._before = self._requires_grad()

    def replaced(self, model: nn.Module, criterion: nn.Module | None, optimizer: Optimizer) -> bool:
        """Return whether one of these, or a module or parameter of them, is another than before."""
        roots = (model, criterion, optimizer)
        if any(now is not before for now, before in zip(roots, self._roots, strict=True)):
            return True
        return list(map(id, self._entries())) != self._ids

    def requires_grad_changed(self) -> bool:
        """Return whether other parameters than before ask for a gradient."""
        return self._requires_grad() != self._before

    def _entries(self) -> list[object]:
        groups: Iterable[list[Tensor]] = map(_PARAMS, self._roots[2].param_groups)
        modules = chain.from_iterable(map(dict.values, self._registries))
        return [*modules, *chain.from_iterable(groups)]

    def _requires_grad(self) -> list[bool]:
        return list(map(_REQUIRES_GRAD, self._learned))

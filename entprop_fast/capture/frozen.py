"""Tell whether what a captured step took from the host still holds.

The reads are C-level maps over lists made once: tens of microseconds for a network of hundreds of
modules, where a walk over the modules would cost more than the replay.
"""

from collections.abc import Callable, Collection, Iterable
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from entprop_fast.torch_internals import (
    buffers_of,
    call_hooks_of,
    children_of,
    find_hooked,
    parameters_of,
    step_hooks_of,
)

_PLAIN = (bool, int, float, str, tuple, type(None), torch.dtype)
_NOT_FROZEN = ("params", "lr")  # of a group: compared by identity; copied into the graph's tensor
_REQUIRES_GRAD = attrgetter("requires_grad")


class Steps(Protocol):
    """Declare what a step is made of; its other attributes are its options."""

    model: nn.Module
    criterion: nn.Module | None
    optimizer: Optimizer


class _Part:
    """One list of values as it was, a name for each, and how to read it again."""

    def __init__(self, read: Callable[[], list[Any]], names: list[str]) -> None:
        self.read, self.names, self.before = read, names, read()

    def difference(self) -> str | None:
        """Return the name of the first value that is not as it was."""
        now = self.read()
        if now == self.before:
            return None
        pairs = enumerate(zip(now, self.before, strict=False))
        first = next((i for i, (new, old) in pairs if new != old), min(len(now), len(self.before)))
        return self.names[min(first, len(self.names) - 1)]


class Frozen:
    """The host's side of a step at the moment when this is made.

    Args:
        steps: model, criterion, optimizer and options.
        skip: attributes of `steps` that are no options.
        device_type: whose autocast state counts.
        with_optimizer: its step is captured, too.
    """

    def __init__(
        self, steps: Steps, skip: Collection[str], device_type: str, *, with_optimizer: bool = True
    ) -> None:
        self._hooks = Hooks(steps, of_optimizer=with_optimizer)
        modules, optimizer = named_modules(steps), steps.optimizer
        groups = range(len(optimizer.param_groups))
        keys = [key for key in optimizer.defaults if key not in _NOT_FROZEN]
        options = [name for name in vars(steps) if name not in skip]

        def group_values() -> list[Any]:
            return [group[key] for group in optimizer.param_groups for key in keys]

        def option_values() -> list[Any]:
            return list(map(vars(steps).get, options))

        # Alive, so that no other object can take over an id that is compared.
        self._held = [modules, group_values(), option_values(), _entries(optimizer.state.values())]
        self._held.append(_parameters(optimizer))
        self._parts = [
            *_module_parts(modules),
            *_tensor_parts(modules, optimizer),
            _Part(lambda: list(map(_plain, option_values())), options),
            _Part(
                lambda: [
                    torch.is_autocast_enabled(device_type),
                    torch.get_autocast_dtype(device_type),
                ],
                ["autocast", "autocast's dtype"],
            ),
        ]
        if not with_optimizer:
            return
        self._parts += [
            _Part(
                lambda: [
                    *(len(group["params"]) for group in optimizer.param_groups),
                    *_ids(_parameters(optimizer)),
                ],
                ["optimizer.param_groups"],
            ),
            _Part(
                lambda: list(map(_plain, group_values())),
                [f"optimizer.param_groups[{number}]['{key}']" for number in groups for key in keys],
            ),
            _Part(
                lambda: [id(optimizer.state), *_ids(_entries(optimizer.state.values()))],
                ["optimizer.state"],
            ),
        ]

    def difference(self) -> str | None:
        """Return the name of what a captured step no longer agrees with; None if it agrees."""
        for part in self._parts:
            if name := part.difference():
                return name
        return None

    def hook(self) -> str | None:
        """Return whose hook was registered since, or None."""
        return self._hooks.find()


class Hooks:
    """Look where hooks on the modules, parameters and optimizer of a step would be.

    A replay runs no Python, so it would pass over them.

    Args:
        steps: what is captured.
        of_optimizer: those of the optimizer count, too.
    """

    def __init__(self, steps: Steps, *, of_optimizer: bool = True) -> None:
        modules = named_modules(steps)
        owners = [(f"{name} ({type(m).__name__})", call_hooks_of(m)) for name, m in modules]
        owners.append(("every module", call_hooks_of(None)))
        if of_optimizer:
            owners.append(("the optimizer", step_hooks_of(steps.optimizer)))
            owners.append(("every optimizer", step_hooks_of(None)))
        self._owners = [owner for owner, registries in owners for _ in registries]
        self._registries = [registry for _, registries in owners for registry in registries]
        named = [(n, t) for n, t in named_tensors(modules) if isinstance(t, nn.Parameter)]
        self._names, self._learned = [n for n, _ in named], [p for _, p in named]

    def find(self) -> str | None:
        """Return whose hook it is, or None where there is none."""
        if any(self._registries):
            places = zip(self._owners, self._registries, strict=True)
            return next(owner for owner, registry in places if registry)
        hooked = find_hooked(self._learned)
        return None if hooked is None else self._names[hooked]


def named_modules(steps: Steps) -> list[tuple[str, nn.Module]]:
    """List every module once, by a name that starts with the step's attribute that holds it."""
    found: dict[nn.Module, str] = {}
    for owner, root in (("model", steps.model), ("criterion", steps.criterion)):
        if root is not None:
            for name, module in root.named_modules(prefix=owner):
                found.setdefault(module, name)
    return [(name, module) for module, name in found.items()]


def _module_parts(modules: list[tuple[str, nn.Module]]) -> list[_Part]:
    """Watch what the modules hold, and their training flags."""
    dicts = [module.__dict__ for _, module in modules]
    owned: list[tuple[str, dict[str, Any]]] = [
        (name, registry)
        for name, module in modules
        for registry in (parameters_of(module), buffers_of(module), children_of(module))
    ]
    registries = [registry for _, registry in owned]
    names = [f"{name}.{entry}" for name, registry in owned for entry in registry]
    flags = [f"{name}.training" for name, _ in modules]
    return [
        _Part(lambda: _ids(_entries(registries)), names),
        _Part(lambda: list(map(itemgetter("training"), dicts)), flags),
    ]


def _tensor_parts(modules: list[tuple[str, nn.Module]], optimizer: Optimizer) -> list[_Part]:
    """Watch where parameters and buffers lie, and which ask for a gradient."""
    named = {id(tensor): (name, tensor) for name, tensor in named_tensors(modules)}
    for number, parameter in enumerate(_parameters(optimizer)):
        named.setdefault(id(parameter), (f"the optimizer's parameter {number}", parameter))
    parameters = [(name, t) for name, t in named.values() if isinstance(t, nn.Parameter)]
    asking = [parameter for _, parameter in parameters]
    tensors = [tensor for _, tensor in named.values()]
    return [
        _Part(
            lambda: list(map(Tensor.data_ptr, tensors)),
            [f"{name}'s memory" for name, _ in named.values()],
        ),
        _Part(
            lambda: list(map(_REQUIRES_GRAD, asking)),
            [f"{name}.requires_grad" for name, _ in parameters],
        ),
    ]


def named_tensors(modules: list[tuple[str, nn.Module]]) -> Iterable[tuple[str, Tensor]]:
    """Yield parameters and buffers, each once."""
    seen: set[int] = set()
    for owner, module in modules:
        for name, tensor in chain(parameters_of(module).items(), buffers_of(module).items()):
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{owner}.{name}", tensor


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return list(chain.from_iterable(group["params"] for group in optimizer.param_groups))


def _entries(dicts: Iterable[dict[str, Any]]) -> list[Any]:
    return list(chain.from_iterable(map(dict.values, dicts)))


def _ids(values: Iterable[object]) -> list[int]:
    return list(map(id, values))


def _plain(value: object) -> object:
    """Return a value that compares by itself, and the identity of any other."""
    return value if isinstance(value, _PLAIN) else id(value)

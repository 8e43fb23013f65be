"""Hold every private name of PyTorch, of its DDP and of Triton that this package relies on.

Each function says what it uses, why nothing public will do and which releases its test passed on
(in tests/test_torch_internals.py). Without the name it raises `MissingInternal`, unless it says
otherwise, and everything else goes on working: pyproject.toml needs no upper bound on torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload  # the class of an op
from torch.autograd import forward_ad
from torch.nn.modules import module as torch_module
from torch.nn.modules.batchnorm import _BatchNorm as BatchNormBase
from torch.nn.modules.batchnorm import _NormBase as NormBase  # with the instance norms
from torch.nn.modules.conv import _ConvNd as ConvBase
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel as Ddp
    from torch.nn.utils.prune import BasePruningMethod

# Classes that no public module exports, for `isinstance`. Tried: 2.11 to 2.15. Without one the
# package does not import, and Python's error names it.
__all__ = ["BatchNormBase", "ConvBase", "MissingInternal", "NormBase", "OpOverload"]

TRIED_TRITONS = ("3.6.", "3.7.", "3.8.", "3.9.")


class MissingInternal(RuntimeError):
    """This release of torch lacks a private name that is used here."""


def _get(owner: Any, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError:
        kind = getattr(owner, "__name__", None) or type(owner).__name__
        raise MissingInternal(
            f"{kind}.{name} is not in torch {torch.__version__}, and entprop_fast.torch_internals "
            f"needs it: torch 2.11 to 2.15 have it; install one of them, and report this"
        ) from None


def _bind(owner: Any, name: str) -> Callable[..., Any]:
    """Look a function up once; without it, return one that raises when it is called."""
    return getattr(owner, name, None) or (lambda *arguments: _get(owner, name))


# Registries, to read or to change: what is public leaves out None and twins, and walks.
def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return a module's registry of children: `Module._modules`. Tried: 2.11 to 2.15."""
    return _get(module, "_modules")


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Return a module's registry of parameters: `Module._parameters`. Tried: 2.11 to 2.15."""
    return _get(module, "_parameters")


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """Return a module's registry of buffers: `Module._buffers`. Tried: 2.11 to 2.15."""
    return _get(module, "_buffers")


def call_hooks_of(module: nn.Module | None) -> list[dict[int, Any]]:
    """Return the registries of hooks that run when a module does, or (None) when any module does.

    `Module._forward_hooks` and its three like; `torch.nn.modules.module._global_forward_hooks` and
    its three: nothing public lists hooks. Tried: 2.11 to 2.15.
    """
    kinds = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    if module is None:
        return [_get(torch_module, f"_global_{kind}") for kind in kinds]
    return [_get(module, f"_{kind}") for kind in kinds]


def step_hooks_of(optimizer: Optimizer | None) -> list[dict[int, Any]]:
    """Return the registries of hooks around an optimiser's steps, or (None) around all steps.

    `Optimizer._optimizer_step_pre_hooks`, `torch.optim.optimizer._global_optimizer_pre_hooks` and
    their `post` twins: nothing public lists hooks. Tried: 2.11 to 2.15.
    """
    if optimizer is None:
        return [_get(torch_optimizer, f"_global_optimizer_{at}_hooks") for at in ("pre", "post")]
    return [_get(optimizer, f"_optimizer_step_{at}_hooks") for at in ("pre", "post")]


def find_hooked(parameters: Sequence[Tensor]) -> int | None:
    """Return the position of the first tensor that has a hook, or None.

    `Tensor._backward_hooks`, `._post_accumulate_grad_hooks`: none is public. Tried: 2.11 to 2.15.
    """
    for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
        _get(torch.Tensor, name)
        hooks = list(map(attrgetter(name), parameters))  # each step asks, of hundreds
        if any(hooks):
            return next(place for place, found in enumerate(hooks) if found)
    return None


def loading_hooks_of(module: nn.Module) -> dict[int, Any]:
    """Return the registry of hooks before a module loads; `hook` of a value is the function.

    `Module._load_state_dict_pre_hooks`: nothing public lists hooks. Tried: 2.11 to 2.15.
    """
    return _get(module, "_load_state_dict_pre_hooks")


def pruned_name(hook: BasePruningMethod) -> str:
    """Return the name of the tensor that a hook of torch's pruning computes.

    `BasePruningMethod._tensor_name`: nothing public tells. Tried: 2.11 to 2.15.
    """
    return _get(hook, "_tensor_name")


def derive_parametrized(module: nn.Module) -> None:
    """Derive a parametrised module's class anew from the one it has now.

    `parametrize._inject_new_class` and `_inject_property`: `register_parametrization` calls them
    for a tensor's first parametrisation alone. Tried: 2.11 to 2.15.
    """
    _get(parametrize, "_inject_new_class")(module)
    for name in module.parametrizations:  # type: ignore[union-attr]
        _get(parametrize, "_inject_property")(module, name)


def check_dimensions(norm: BatchNormBase, x: Tensor) -> None:
    """Raise ValueError unless `x` has the dimensions that the class of `norm` takes.

    `_BatchNorm._check_input_dim`: each class has its own. Tried: 2.11 to 2.15.
    """
    _get(norm, "_check_input_dim")(x)


def expect_eager_steps(optimizer: Optimizer) -> None:
    """Keep an optimiser whose groups are capturable from warning when it steps eagerly.

    `Optimizer._warned_capturable_if_run_uncaptured`: no switch; else it warns. Tried: 2.11 to 2.15.
    """
    optimizer._warned_capturable_if_run_uncaptured = True


# Autograd and the dispatcher, asked hundreds of times a step.
_graph_task_id = _bind(torch._C, "_current_graph_task_id")
_will_execute = _bind(torch._C, "_will_engine_execute_node")
_saved_tensor_hooks = _bind(torch._C._autograd, "_top_saved_tensors_default_hooks")
_transforms_active = _bind(torch._C, "_are_functorch_transforms_active")
_dispatch_modes = _bind(torch._C, "_len_torch_dispatch_stack")


def running_backward() -> int | None:
    """Return the number of the innermost backward pass that is running, as around a checkpoint's.

    `torch._C._current_graph_task_id`: nothing public tells. Tried: 2.11 to 2.15.
    """
    return None if (number := _graph_task_id()) == -1 else number


def backward_reaches(node: Any) -> bool:
    """Return whether the backward pass that is running goes on to `node`.

    `torch._C._will_engine_execute_node`: `ctx.needs_input_grad` is true of a weight also where only
    the images' gradient is asked for. Tried: 2.11 to 2.15. Without it, and where it cannot tell (a
    leaf whose gradient `torch.autograd.grad` returns): True.
    """
    try:
        return _will_execute(node)
    except RuntimeError:
        return True


def saved_tensor_hooks() -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Return the innermost pair of hooks that pack and unpack saved tensors now, or None.

    `torch._C._autograd._top_saved_tensors_default_hooks`: no public getter. Tried: 2.11 to 2.15.
    """
    return _saved_tensor_hooks(True)


def transforms_active() -> bool:
    """Return whether a transform of `torch.func` is active.

    `torch._C._are_functorch_transforms_active`: nothing public tells. Tried: 2.11 to 2.15.
    """
    return _transforms_active()


def forward_mode_active() -> bool:
    """Return whether forward-mode derivatives are being computed.

    `torch.autograd.forward_ad._current_level`: nothing public tells. Tried: 2.11 to 2.15.
    """
    return _get(forward_ad, "_current_level") >= 0


def dispatch_modes_active() -> bool:
    """Return whether a `TorchDispatchMode` watches the ops that are called.

    `torch._C._len_torch_dispatch_stack`: nothing public tells. Tried: 2.11 to 2.15.
    """
    return _dispatch_modes() > 0


def export_records() -> bool:
    """Return whether `torch.export` records a program: `torch.compiler._is_exporting_flag`.

    A compiler takes `is_exporting()` for True in 2.11 (pytorch 176347). Tried: 2.11, 2.13.
    """
    flag = getattr(torch.compiler, "_is_exporting_flag", None)
    return torch.compiler.is_exporting() if flag is None else flag


# `torch.distributions` takes no generator.
def draw_gamma(concentration: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from Gamma(concentration, 1): `torch._standard_gamma`. Tried: 2.11 to 2.15."""
    return _get(torch, "_standard_gamma")(concentration, generator)


def draw_dirichlet(concentration: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw from Dirichlet(concentration): `torch._sample_dirichlet`. Tried: 2.11 to 2.15."""
    return _get(torch, "_sample_dirichlet")(concentration, generator)


def versions_of(tensors: Sequence[Tensor]) -> list[int]:
    """Count each one's changes in place: `Tensor._version`, nothing public tells. Tried: 2.13."""
    return [_get(tensor, "_version") for tensor in tensors]


# Many tensors in a few launches; none has a public name.
def copy_each(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target: `torch._foreach_copy_`. Tried: 2.11 to 2.15."""
    _get(torch, "_foreach_copy_")(targets, sources)


def add_each(tensors: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Add to each tensor what belongs to it: `torch._foreach_add_`. Tried: 2.11 to 2.15."""
    _get(torch, "_foreach_add_")(tensors, others)


def multiply_each(tensors: Sequence[Tensor], factors: Sequence[float]) -> None:
    """Multiply each tensor by its factor: `torch._foreach_mul_`. Tried: 2.11 to 2.15."""
    _get(torch, "_foreach_mul_")(tensors, factors)


def stale_streams_redirected() -> bool | None:
    """Return whether nodes of a backward graph move from their stream to one that is captured.

    `torch._C._override_stale_capture_stream`: the public setter in `torch.autograd.graph` has no
    getter. Tried: 2.13. None without it, as in 2.11, where such a node ends the capture.
    """
    redirected = getattr(torch._C, "_override_stale_capture_stream", None)
    return None if redirected is None else redirected()


def end_allocation_to_pool(device: int, pool: Any) -> None:
    """End what a failed capture left open: later allocations going to its memory pool.

    `torch._C._cuda_endAllocateToPool`: `capture_end` raises before it gets there. Tried: 2.11.
    """
    _get(torch._C, "_cuda_endAllocateToPool")(device, pool)


def reset_reducer(wrapper: Ddp) -> None:
    """Let a wrapper forget a forward whose backward never came.

    `DistributedDataParallel.reducer._reset_state`: nothing public does. Tried: 2.11 to 2.15.
    """
    _get(_get(wrapper, "reducer"), "_reset_state")()


def settings_of_passes(wrapper: Ddp) -> dict[str, bool]:
    """Return which settings are on that only a forward through the wrapper heeds.

    `DistributedDataParallel._comm_hooks`, `._delay_all_reduce_params`, `._join_config`: nothing
    public tells. Tried: 2.11 to 2.15.
    """
    return {
        "mixed_precision": bool(_get(wrapper, "mixed_precision")),
        "a communication hook": bool(_get(wrapper, "_comm_hooks")),
        "delay_all_reduce_named_params": bool(_get(wrapper, "_delay_all_reduce_params")),
        "join()": _get(_get(wrapper, "_join_config"), "enable"),
    }


def launch_compiled(compiled: Any, grid: Iterable[int], arguments: Iterable[Any]) -> None:
    """Launch what Triton compiled, with all arguments of its kernel by position.

    `CompiledKernel.__getitem__`: the public launch looks at each argument first. Tried: Triton 3.6
    to 3.9, and called with no other, see kernels/device.py.
    """
    compiled[*grid, 1](*arguments)

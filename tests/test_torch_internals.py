"""Check `entprop_fast.torch_internals`: what each private name is relied on for, one by one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize, prune
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from entprop_fast import torch_internals as internals
from tests.processes import group_of_one


def ignore(*arguments: Any) -> None:
    """Be a hook."""


def _check_registry(registry: Callable[[], dict[str, Any]], module: nn.Module, other: Any) -> None:
    """Check that it holds what is None, too, and that a change of it is the module's."""
    (name, *_), values = registry(), registry().values()
    assert None in values
    registry()[name] = other
    assert getattr(module, name) is other


def check_children_of() -> None:
    model = nn.Sequential(nn.ReLU())
    model.register_module("absent", None)
    _check_registry(lambda: internals.children_of(model), model, nn.Tanh())


def check_parameters_of() -> None:
    layer = nn.Linear(2, 2, bias=False)
    _check_registry(lambda: internals.parameters_of(layer), layer, None)


def check_buffers_of() -> None:
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    _check_registry(lambda: internals.buffers_of(norm), norm, torch.ones(2))


def check_call_hooks_of() -> None:
    module = nn.ReLU()
    for owner, where in ((module, module), (None, nn.modules.module)):
        for when in ("forward", "forward_pre", "full_backward", "full_backward_pre"):
            name = f"register_{'' if owner else 'module_'}{when}_hook"
            _check_listed(internals.call_hooks_of(owner), getattr(where, name))


def check_step_hooks_of() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))])
    _check_listed(internals.step_hooks_of(optimizer), optimizer.register_step_pre_hook)
    _check_listed(internals.step_hooks_of(optimizer), optimizer.register_step_post_hook)
    _check_listed(internals.step_hooks_of(None), register_optimizer_step_pre_hook)
    _check_listed(internals.step_hooks_of(None), register_optimizer_step_post_hook)


def _check_listed(registries: list[dict[int, Any]], register: Callable[[Any], Any]) -> None:
    assert not any(registries)
    handle = register(ignore)
    assert [list(registry.values()) for registry in registries if registry] == [[ignore]]
    handle.remove()


def check_find_hooked() -> None:
    parameters = [nn.Parameter(torch.ones(1)) for _ in range(3)]
    assert internals.find_hooked(parameters) is None
    handle = parameters[1].register_hook(ignore)
    assert internals.find_hooked(parameters) == 1
    handle.remove()
    parameters[2].register_post_accumulate_grad_hook(ignore)
    assert internals.find_hooked(parameters) == 2


def check_loading_hooks_of() -> None:
    module = nn.ReLU()
    module.register_load_state_dict_pre_hook(ignore)
    hooks = internals.loading_hooks_of(module)
    assert [hook.hook for hook in hooks.values()] == [ignore]
    hooks.clear()
    module.load_state_dict({})
    # The norms override what a state dict is loaded by.
    assert "_load_from_state_dict" in inspect.getsource(nn.Module.load_state_dict)


def check_pruned_name() -> None:
    layer = prune.identity(nn.Linear(2, 2), "weight")
    (hook,) = internals.call_hooks_of(layer)[1].values()
    assert internals.pruned_name(hook) == "weight"


def check_derive_parametrized() -> None:
    class Other(nn.Linear):
        pass

    layer = nn.Linear(2, 2)
    weight = layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", nn.Softmax(1))
    layer.__class__ = Other
    internals.derive_parametrized(layer)
    assert isinstance(layer, Other) and type(layer) is not Other
    assert torch.equal(layer.weight, weight.softmax(1))


def check_check_dimensions() -> None:
    internals.check_dimensions(nn.BatchNorm2d(3), torch.ones(2, 3, 1, 1))
    with pytest.raises(ValueError, match="4D"):
        internals.check_dimensions(nn.BatchNorm2d(3), torch.ones(2, 3))


def check_expect_eager_steps() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))])
    pickled = copy.deepcopy(optimizer)  # torch loses the flag with a copy
    internals.expect_eager_steps(pickled)
    for one in (optimizer, pickled):
        assert vars(one)["_warned_capturable_if_run_uncaptured"] is True


def check_running_backward() -> None:
    seen = [internals.running_backward()]
    x = torch.ones(1, requires_grad=True)

    def inner(y: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # in a pass of its own, within the other one
            seen.append(internals.running_backward())
            y.register_hook(lambda grad: seen.append(internals.running_backward()))
        return y * 2

    y = x * 3
    y.register_hook(lambda grad: seen.append(internals.running_backward()))
    checkpoint(inner, y, use_reentrant=True).sum().backward()
    before, around, within, again = seen
    assert before is None and around == again != within
    assert None not in (around, within) and internals.running_backward() is None


def check_backward_reaches() -> None:
    seen: list[list[bool]] = []

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            return x * weight

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
            seen.append([internals.backward_reaches(node) for node, _ in ctx.next_functions])
            return grad, grad

    x, weight = (torch.ones(1, requires_grad=True) for _ in range(2))
    apply: Callable[..., Tensor] = Product.apply
    y = apply(x * 1, weight)
    torch.autograd.grad(y, x, retain_graph=True)
    y.backward()
    assert seen == [[True, False], [True, True]]
    assert internals.backward_reaches(weight) is True  # cannot tell


def check_saved_tensor_hooks() -> None:
    assert internals.saved_tensor_hooks() is None
    pack, unpack = torch.neg, torch.abs
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        assert internals.saved_tensor_hooks() == (pack, unpack)


def check_transforms_active() -> None:
    seen = [internals.transforms_active()]

    def look(x: Tensor) -> Tensor:
        seen.append(internals.transforms_active())
        return x

    torch.func.vmap(look)(torch.ones(2))
    assert seen == [False, True]


def check_forward_mode_active() -> None:
    assert not internals.forward_mode_active()
    with torch.autograd.forward_ad.dual_level():
        assert internals.forward_mode_active()


def check_dispatch_modes_active() -> None:
    assert not internals.dispatch_modes_active()
    with TorchDispatchMode():
        assert internals.dispatch_modes_active()


def check_draw_gamma() -> None:
    drawn = _drawn(internals.draw_gamma, torch.full((20000,), 3.0))
    assert abs(float(drawn.mean()) - 3) < 0.06 and abs(float(drawn.var()) - 3) < 0.2


def check_draw_dirichlet() -> None:
    drawn = _drawn(internals.draw_dirichlet, torch.ones(20000, 2))
    assert torch.allclose(drawn.sum(1), torch.ones(()))
    assert abs(float(drawn[:, 0].var()) - 1 / 12) < 0.004


def _drawn(draw: Callable[..., Tensor], concentration: Tensor) -> Tensor:
    one, same, other = (
        draw(concentration, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other)
    return one


def check_copy_each() -> None:
    targets, sources = ([torch.full((size,), value) for size in (2, 3)] for value in (0.0, 5.0))
    internals.copy_each(targets, sources)
    assert all(map(torch.equal, targets, sources))


def check_add_each() -> None:
    tensors = [torch.ones(2), torch.ones(3)]
    internals.add_each(tensors, [torch.ones(2), torch.zeros(3)])
    assert [tensor.tolist() for tensor in tensors] == [[2, 2], [1, 1, 1]]


def check_multiply_each() -> None:
    tensors = [torch.ones(2), torch.ones(3)]
    internals.multiply_each(tensors, [2.0, 0.5])
    assert [tensor.tolist() for tensor in tensors] == [[2, 2], [0.5, 0.5, 0.5]]


def check_stale_streams_redirected() -> None:
    switch = getattr(torch.autograd.graph, "set_override_stale_capture_stream", None)
    before = internals.stale_streams_redirected()
    assert (before is None) == (switch is None)
    if switch is not None:
        switch(not before)
        assert internals.stale_streams_redirected() is not before
        switch(before)


def check_end_allocation_to_pool() -> None:
    # Its effect is checked with a GPU, by tests/gpu/test_gpu_capture.py.
    assert "capture_end" in dir(torch.cuda.CUDAGraph)
    if torch.version.cuda is not None:
        assert callable(torch._C._cuda_endAllocateToPool)


def check_versions_of() -> None:
    changed, kept = torch.ones(2), torch.ones(2)
    before = internals.versions_of([changed, kept])
    changed.add_(1)
    assert internals.versions_of([changed, kept]) == [before[0] + 1, before[1]]


def check_export_records() -> None:
    class Asks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sin() if internals.export_records() else x.cos()

    asks, x = Asks(), torch.ones(2)
    assert torch.equal(asks(x), x.cos())
    assert torch.equal(torch.compile(asks, backend="eager", fullgraph=True)(x), x.cos())
    for strict in (True, False):
        program = torch.export.export(asks, (x,), strict=strict)
        assert torch.equal(program.module()(x), x.sin())
    assert torch.equal(asks(x), x.cos())


def check_reset_reducer() -> None:
    model = nn.Linear(1, 1)
    wrapper = DistributedDataParallel(model)
    for _ in range(2):  # without it the second forward raises: the first has had no backward
        wrapper(torch.ones(1, 1))
        internals.reset_reducer(wrapper)
    assert model.weight.grad is None


def check_settings_of_passes() -> None:
    wrapper = DistributedDataParallel(nn.Linear(1, 1))
    settings = internals.settings_of_passes
    assert not any(settings(wrapper).values())
    with wrapper.join():
        assert [name for name, on in settings(wrapper).items() if on] == ["join()"]
    wrapper.register_comm_hook(None, lambda state, bucket: bucket.buffer())
    assert settings(wrapper)["a communication hook"]
    layer = nn.Linear(1, 1)
    other = DistributedDataParallel(
        layer,
        delay_all_reduce_named_params=[("weight", layer.weight)],
        param_to_hook_all_reduce=layer.bias,
    )
    assert settings(other)["delay_all_reduce_named_params"]
    # torch makes a wrapper with mixed precision on a GPU alone.
    assert "self.mixed_precision" in inspect.getsource(DistributedDataParallel.__init__)


def check_launch_compiled() -> None:
    compiler = pytest.importorskip("triton.compiler")
    assert hasattr(compiler.CompiledKernel, "__getitem__")
    launched: list[Any] = []

    class Compiled:
        def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
            return lambda *arguments: launched.append((grid, arguments))

    internals.launch_compiled(Compiled(), (2, 3), ("x", 4.0, 16))
    assert launched == [((2, 3, 1), ("x", 4.0, 16))]
    # By the real one: tests/kernels_aot/test_remembered_launches.py.


CHECKS: dict[str, Callable[[], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}


@pytest.mark.parametrize("name", CHECKS)
def test_this_torch_has(name: str) -> None:
    """The private names behind the function of this name are there and do what it says."""
    with group_of_one():
        CHECKS[name]()

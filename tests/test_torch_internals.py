"""Check `entprop_fast.torch_internals`: what each private name is relied on for, one by one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize, prune
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from entprop_fast import torch_internals as internals


def ignore(*arguments: Any) -> None:
    """Be a hook."""


def check_children_of() -> None:
    model, shared = nn.Sequential(nn.ReLU()), nn.Tanh()
    model.register_module("absent", None)
    model.one = model.other = shared
    assert list(internals.children_of(model)) == ["0", "absent", "one", "other"]
    internals.children_of(model)["0"] = shared
    assert model[0] is shared


def check_parameters_of() -> None:
    layer = nn.Linear(2, 2, bias=False)
    assert internals.parameters_of(layer) == {"weight": layer.weight, "bias": None}
    internals.parameters_of(layer)["weight"] = None
    assert layer.weight is None


def check_buffers_of() -> None:
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    assert set(internals.buffers_of(norm).values()) == {None}
    internals.buffers_of(norm)["running_mean"] = mean = torch.ones(2)
    assert norm.running_mean is mean


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
    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    class Other(nn.Linear):
        pass

    layer = nn.Linear(2, 2)
    weight = layer.weight.detach().clone()
    parametrize.register_parametrization(layer, "weight", Double())
    layer.__class__ = Other
    internals.derive_parametrized(layer)
    assert isinstance(layer, Other) and type(layer) is not Other
    assert torch.equal(layer.weight, 2 * weight)


def check_check_dimensions() -> None:
    internals.check_dimensions(nn.BatchNorm2d(3), torch.ones(2, 3, 1, 1))
    with pytest.raises(ValueError, match="4D"):
        internals.check_dimensions(nn.BatchNorm2d(3), torch.ones(2, 3))


def check_expect_eager_steps() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))])
    fresh = vars(optimizer).copy()
    internals.expect_eager_steps(pickled := copy.deepcopy(optimizer))
    assert vars(pickled)["_warned_capturable_if_run_uncaptured"] is True
    # torch still keeps the flag by this name, and loses it with a copy.
    assert fresh["_warned_capturable_if_run_uncaptured"] is True


def check_in_backward() -> None:
    seen = [internals.in_backward()]
    x = torch.ones(1, requires_grad=True)
    x.register_hook(lambda grad: seen.append(internals.in_backward()))
    x.sum().backward()
    assert seen == [False, True]


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
    drawn = [_drawn(internals.draw_gamma, torch.full((20000,), 3.0), seed) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert abs(float(drawn[0].mean()) - 3) < 0.06 and abs(float(drawn[0].var()) - 3) < 0.2


def check_draw_dirichlet() -> None:
    drawn = [_drawn(internals.draw_dirichlet, torch.ones(20000, 2), seed) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.allclose(drawn[0].sum(1), torch.ones(()))
    assert abs(float(drawn[0][:, 0].var()) - 1 / 12) < 0.004


def _drawn(draw: Callable[..., Tensor], concentration: Tensor, seed: int) -> Tensor:
    return draw(concentration, torch.Generator().manual_seed(seed))


def check_copy_each() -> None:
    targets = [torch.zeros(2), torch.zeros(2, 3)]
    internals.copy_each(targets, [torch.arange(2.0), torch.ones(2, 3)])
    assert targets[0].tolist() == [0, 1] and targets[1].sum() == 6


def check_multiply_each() -> None:
    tensors = [torch.ones(2), torch.ones(3)]
    internals.multiply_each(tensors, [2.0, 0.5])
    assert [tensor.tolist() for tensor in tensors] == [[2, 2], [0.5, 0.5, 0.5]]


def check_end_allocation_to_pool() -> None:
    # Its effect is checked with a GPU, by tests/gpu/test_gpu_capture.py.
    assert "capture_end" in dir(torch.cuda.CUDAGraph)
    if torch.version.cuda is not None:
        assert callable(torch._C._cuda_endAllocateToPool)


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


@pytest.fixture
def single_process() -> Iterator[None]:
    """Be in a process group of one."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.usefixtures("single_process")
def test_this_torch_has(name: str) -> None:
    """The private names behind the function of this name are there and do what it says."""
    CHECKS[name]()

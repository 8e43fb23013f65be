"""The networks' sums in their norms' passes: the same bits as sums outside, without their launches.

A hook on a block has the network compute it as it stands, its output complete: the path before.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from entprop_fast import convert_dual_norm, route
from entprop_fast.layers import batch_norms
from entprop_fast.layers.synchronise import synchronise_norms
from entprop_fast.models import create
from entprop_fast.models.resnet import BasicBlock, Bottleneck
from entprop_fast.models.wrn import PreActBlock, WideResNet
from tests.ops.conftest import needs_extension
from tests.processes import group_of_one

BLOCKS = (PreActBlock, BasicBlock, Bottleneck)
aten = torch.ops.aten
NETWORKS: dict[str, dict[str, Any]] = {
    "wrn16_2": {},
    "wrn10_0.5": {},
    "resnet18": {"stem": "cifar"},
    "resnet50": {},
}
# Sums of whole activations outside of the ops, forward and backward: (of watched blocks, now). In a
# WRN the sum of each of the 6 blocks, and the two gradients of its input, but for the 3 whose skip
# path is a convolution: it reads the activated input, whose norm sums its gradients in watched
# blocks, too. In a ResNet the two gradients of each block's input; the first block of resnet50
# reads a max-pool's output: the one sum that is left.
SUMS = {"wrn16_2": (6 + 3, 0), "resnet18": (8, 0), "resnet50": (16, 1)}


def network(name: str, dual: bool = True) -> nn.Module:
    torch.manual_seed(0)
    model = create(name, num_classes=5, **NETWORKS[name])
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return convert_dual_norm(model) if dual else model


def blocks_of(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, BLOCKS)]


def watched(model: nn.Module) -> nn.Module:
    """Hook every block: none may leave its sum to another."""
    for block in blocks_of(model):
        block.register_forward_hook(lambda *_: None)
    return model


def images(rows: int = 6, size: int = 16) -> Tensor:
    x = torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last)


def outcome(model: nn.Module, num_main: int | None, dtype: torch.dtype) -> list[Tensor]:
    """Return logits, gradients and what has moved after two passes, the second from the first's."""
    model = model.to(dtype)
    x = images().to(dtype).requires_grad_()
    for _ in range(2):
        with route(model, "main" if num_main is None else num_main):
            logits = model(x)
        (logits * torch.linspace(-1, 1, 5, dtype=dtype)).sum().backward()
    assert x.grad is not None
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [logits.detach(), x.grad, *gradients, *model.buffers()]


@pytest.mark.parametrize(
    ("name", "num_main", "dtype"),
    [
        ("wrn16_2", None, torch.float32),
        ("wrn16_2", 4, torch.bfloat16),
        ("wrn10_0.5", 0, torch.float32),
        ("resnet18", 4, torch.float32),
        ("resnet18", None, torch.bfloat16),
        ("resnet50", 4, torch.float32),
    ],
)
def test_bits_of_the_network_with_sums_outside(
    name: str, num_main: int | None, dtype: torch.dtype
) -> None:
    ours = outcome(network(name), num_main, dtype)
    theirs = outcome(watched(network(name)), num_main, dtype)
    assert len(ours) == len(theirs)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_of_plain_norms_and_in_eval_mode() -> None:
    for name in ("wrn16_2", "resnet18"):
        for train in (True, False):
            pair = [network(name, dual=False).train(train), watched(network(name, dual=False))]
            ours, theirs = (model.train(train)(images()) for model in pair)
            assert torch.equal(ours, theirs)
            for a, b in zip(*(model.state_dict().values() for model in pair), strict=True):
                assert torch.equal(a, b)


class Sums(TorchDispatchMode):
    """Count sums of whole activations, of counters, and the bytes that the former move."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (aten.add, aten.add_):
            kind = {4: "activations", 0: "counters"}.get(args[0].dim(), "others")
            self.seen[kind] += 1
            self.seen[f"bytes of {kind}"] += 3 * args[0].nbytes
        if func.namespace == "entprop_fast":
            self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **kwargs or {})


def counted(model: nn.Module) -> Counter[str]:
    with Sums() as sums, route(model, 4):
        model(images().requires_grad_()).sum().backward()
    seen: Counter[str] = sums.seen
    return seen


@needs_extension
@pytest.mark.parametrize("name", SUMS)
def test_launches_and_bytes_saved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step launches on a GPU, where no norm is too small for the op."""
    monkeypatch.setattr(batch_norms, "_TINY", 0)
    before, now = counted(watched(network(name))), counted(network(name))
    assert (before["activations"], now["activations"]) == SUMS[name]
    norms = sum(isinstance(m, batch_norms.DualBatchNorm2d) for m in network(name).modules())
    for seen in (before, now):
        assert seen["counters"] == 0  # one a norm and pass, until the op counted
        assert seen["dual_batch_norm"] == seen["dual_batch_norm_backward"] == norms
    # Each is 3 passes over a block's input or output.
    model, inputs, outputs = network(name), [], []

    def look(block: nn.Module, given: tuple[Tensor], y: Tensor) -> None:
        outputs.append(isinstance(block, PreActBlock) * y.nbytes)
        inputs.append((getattr(block, "shortcut", None) is None) * given[0].nbytes)

    for block in blocks_of(model):
        block.register_forward_hook(look)
    model(images())
    assert before["bytes of activations"] == 3 * (sum(inputs) + sum(outputs))
    assert now["bytes of activations"] == (3 * inputs[0] if name == "resnet50" else 0)


@pytest.mark.parametrize("name", ["wrn16_2", "resnet18"])
@pytest.mark.parametrize("part", ["layer2", "layer2.0", "layer1.1", "bn1", "layer2.1.bn2"])
def test_hooks_see_what_they_saw(name: str, part: str) -> None:
    """Of a group, a block or a norm: its complete input and output."""
    if part == "bn1" and name == "wrn16_2":
        part = "bn"
    seen: list[list[Tensor]] = []
    for model in (network(name), watched(network(name))):
        kept: list[Tensor] = []
        module = model.get_submodule(part)
        module.register_forward_hook(partial(_keep_forward, kept))
        module.register_full_backward_hook(partial(_keep_backward, kept))
        model(images()).sum().backward()
        seen.append(kept)
    assert len(seen[0]) == len(seen[1]) == 4
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def _keep_forward(kept: list[Tensor], _: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> None:
    kept.extend((given[0], y))


def _keep_backward(
    kept: list[Tensor], _: nn.Module, dx: tuple[Tensor, ...], dy: tuple[Tensor, ...]
) -> None:
    kept.extend((*dx, *dy))


def _patched(block: nn.Module, calls: list[str]) -> None:
    forward = block.forward

    def patched(x: Tensor) -> Any:
        calls.append("patched")
        return forward(x)

    block.forward = patched


def _compiled(block: nn.Module, calls: list[str]) -> None:
    def backend(graph: Any, _: Any) -> Any:
        calls.append("compiled")
        return graph.forward

    block.compile(backend=backend)


def _hooked_globally(block: nn.Module, calls: list[str]) -> None:
    def hook(module: nn.Module, *_: Any) -> None:
        calls.extend(["hooked"] * (module is block))

    handle = nn.modules.module.register_module_forward_hook(hook)
    calls.append(handle)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["wrn16_2", "resnet18"])
@pytest.mark.parametrize("change", [_patched, _compiled, _hooked_globally])
def test_a_block_run_in_another_way_is_run_so(
    name: str, change: Callable[[nn.Module, list[str]], None]
) -> None:
    model = network(name)
    calls: list[Any] = []
    expected = network(name)(images())
    change(blocks_of(model)[2], calls)
    found = model(images())
    handles = [calls.pop(0)] if change is _hooked_globally else []
    for handle in handles:
        handle.remove()
    assert calls
    torch.testing.assert_close(found, expected)


def test_a_replaced_block_gets_the_sum() -> None:
    class Scale(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x

    for name in ("wrn16_2", "resnet18"):
        pair = network(name), watched(network(name))
        for model in pair:
            cast(nn.Sequential, model.layer2)[1] = Scale()
        assert torch.equal(*(model(images()) for model in pair))


def test_synchronised_norms_sum_outside() -> None:
    for name in ("wrn16_2", "resnet18"):
        with group_of_one():
            ours = outcome(synchronise_norms(network(name)), 4, torch.float32)
            theirs = outcome(synchronise_norms(watched(network(name))), 4, torch.float32)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", ["wrn10_0.5", "resnet18"])
def test_compiled_as_a_whole(name: str) -> None:
    model = network(name).eval()
    found = torch.compile(model, fullgraph=True, backend="aot_eager")(images())
    torch.testing.assert_close(found, model(images()))


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("part", ["layer1", "layer2.0"])
def test_a_forward_of_ones_own_is_called(part: str, compiled: bool) -> None:
    model = network("wrn10_0.5").eval()
    module, theirs = model.get_submodule(part), model.get_submodule(part).forward
    expected = model(images())
    module.forward = lambda x: theirs(x) + 1
    called: Any = model
    if compiled:
        called = torch.compile(model, fullgraph=True, backend="eager")
    found = called(images())
    assert not torch.allclose(found, expected)
    if compiled:
        torch.testing.assert_close(found, model(images()))


def test_recorded_by_torch_fx() -> None:
    for model in (network("resnet18"), convert_dual_norm(WideResNet(10, 0.5, num_classes=5))):
        found = torch.fx.symbolic_trace(model.eval())(images())
        torch.testing.assert_close(found, model(images()))


def _add_in_place(_: nn.Module, given: tuple[Tensor]) -> None:
    given[0].add_(0.5)


@pytest.mark.parametrize("change", ["module", "hook"])
@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("wrn16_2", "layer2.0.shortcut"),  # before the other reader: one behind it is refused
        ("resnet18", "layer2.0.downsample"),
        ("resnet18", "layer2.1.conv1"),
    ],
)
def test_a_reader_that_changes_its_input_in_place(name: str, reader: str, change: str) -> None:
    """It changed the one tensor of both readers, and autograd knew; it does so still."""
    pair = network(name), watched(network(name))
    for model in pair:
        if change == "module":
            found = model.get_submodule(reader)
            model.set_submodule(reader, nn.Sequential(nn.SiLU(inplace=True), found))
        else:
            model.get_submodule(reader).register_forward_pre_hook(_add_in_place)
    ours, theirs = (outcome(model, None, torch.float32) for model in pair)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_counter_that_both_halves_share_counts_twice() -> None:
    """As of two norms that hold it; running statistics that they share are refused."""
    norm = batch_norms.DualBatchNorm2d(8)
    norm.aux_bn.num_batches_tracked = norm.num_batches_tracked
    for target, count in ((4, 2), ("main", 3), ("aux", 4), (6, 5)):
        with route(norm, target):  # type: ignore[arg-type]
            norm(torch.randn(6, 8, 32, 32))
        assert norm.num_batches_tracked == count

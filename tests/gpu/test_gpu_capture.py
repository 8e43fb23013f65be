"""Captured steps on a CUDA device: bit for bit the eager ones, in no more memory."""

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import Method, convert_dual_norm, create_method
from entprop_fast.capture import capturable_optimizer
from entprop_fast.methods import METHODS
from entprop_fast.models import create
from tests.methods.support import assert_equal, gradients

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)
CLASSES = 5
STEPS = 20
WARM_UP = 3

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """In place of this folder's: deterministic convolutions, chosen without a trial."""
    before = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-3)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def network(arch: str = "wrn10_1") -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = convert_dual_norm(create(arch, num_classes=CLASSES))
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model.to(CUDA)


def make(
    name: str = "entprop",
    *,
    optimizer: MakeOptimizer = sgd,
    model: nn.Module | None = None,
    capture: str = "on",
    **options: Any,
) -> Method:
    """A method on the device; an eager one in the same form as the captured."""
    model = network() if model is None else model
    held = optimizer(model)
    if capture == "off":
        capturable_optimizer(held, CUDA)
    if "generator" not in options:
        options["generator"] = torch.Generator(CUDA).manual_seed(3)
    return create_method(name, model, held, capture=capture, **options)


def batch(seed: int, rows: int = 32, size: int = 16) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    images = torch.rand(rows, 3, size, size, generator=source)
    labels = torch.randint(CLASSES, (rows,), generator=source)
    return images.to(CUDA, memory_format=torch.channels_last), labels.to(CUDA)


def state(method: Method) -> dict[str, Any]:
    """All that a step changes, copied."""
    optimizer = method.optimizer.state_dict()
    drawn = method.generator
    return {
        "model": {name: value.clone() for name, value in method.model.state_dict().items()},
        "gradients": gradients(method.model),
        "optimizer": copy.deepcopy(optimizer["state"]),
        "lr": [group["lr"].clone() for group in optimizer["param_groups"]],
        "random": torch.cuda.get_rng_state(CUDA) if drawn is None else drawn.get_state(),
        "method": method.state_dict(),
        "selected": None if method.selected_index is None else method.selected_index.clone(),
        "perturbed": None if method.perturbed is None else method.perturbed.clone(),
    }


def assert_same(captured: Method, eager: Method, seeds: range, **shape: int) -> list[Tensor]:
    """Feed both the same steps; results and all state must agree bit for bit."""
    losses = []
    for seed in seeds:
        images, labels = batch(seed, **shape)
        given = torch.cat([images / (1 + view) for view in range(captured.views)]), labels
        default = torch.cuda.get_rng_state(CUDA)
        expected = eager(*given)
        after = torch.cuda.get_rng_state(CUDA)
        torch.cuda.set_rng_state(default, CUDA)
        result = captured(*given)
        assert torch.equal(torch.cuda.get_rng_state(CUDA), after)
        assert_equal(list(result), list(expected))
        losses.append(result.loss)
    assert_equal(state(captured), state(eager))
    return losses


@pytest.mark.parametrize("own_generator", [True, False])
@pytest.mark.parametrize("amp", [None, "bf16"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_bit_for_bit(name: str, amp: str | None, own_generator: bool) -> None:
    options: dict[str, Any] = {"amp": amp} | ({} if own_generator else {"generator": None})
    captured, eager = make(name, **options), make(name, capture="off", **options)
    losses = assert_same(captured, eager, range(STEPS))
    graphs_a_step = getattr(captured, "replays", 1)  # free training replays one for each of its own
    first = name == "entprop_pipelined"  # a shape of its own: no row waits yet
    assert captured.captures.replays == STEPS * graphs_a_step - WARM_UP - first
    assert eager.captures.replays == 0
    assert len({float(loss) for loss in losses}) == STEPS  # results of their own


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0.6, "n": 3, "accumulate": "all", "equalize": True},
        {"n": 2, "aux_labels": "mixed", "aux_stats": "every"},
        {"score": "random", "label_smoothing": 0.1, "max_grad_norm": 0.5},
        {"jsd": 12.0, "k": 0.6, "n": 2},
        {"criterion": nn.CrossEntropyLoss(reduction="none"), "mixup": 0.0},
    ],
    ids=str,
)
def test_options_bit_for_bit(options: dict[str, Any]) -> None:
    assert_same(make(**options), make(capture="off", **options), range(8))


@pytest.mark.parametrize("aux_labels", ["original", "mixed"])
def test_rows_that_wait_bit_for_bit(aux_labels: str) -> None:
    """Around smaller batches, over a state that is loaded, and after they were dropped."""
    options: dict[str, Any] = {"k": 0.5, "aux_labels": aux_labels}
    name = "entprop_pipelined"
    captured, eager = make(name, **options), make(name, capture="off", **options)
    assert_same(captured, eager, range(6))
    for start in (10, 20, 30, 40):
        assert_same(captured, eager, range(start, start + 1), rows=12)
        assert_same(captured, eager, range(start + 1, start + 4))
    saved = eager.state_dict()
    assert_same(captured, eager, range(50, 52))
    for method in (captured, eager):
        method.load_state_dict(saved)
    assert_same(captured, eager, range(60, 62))
    for method in (captured, eager):
        method.waiting = 0  # type: ignore[attr-defined]
    assert_same(captured, eager, range(70, 73))
    assert captured.captures.why_eager is None and captured.captures.replays > 12


@pytest.mark.parametrize("optimizer", [sgd, adam, adamw])
def test_optimizers_and_learning_rates(optimizer: MakeOptimizer) -> None:
    captured = make(optimizer=optimizer)
    eager = make(optimizer=optimizer, capture="off")
    for seed in range(10):
        for method in (captured, eager):
            method.optimizer.param_groups[0]["lr"] = 0.01 / (1 + seed)
        capturable_optimizer(eager.optimizer, CUDA)
        assert_same(captured, eager, range(seed, seed + 1))
    assert captured.captures.replays == 10 - WARM_UP
    before = [p.detach().clone() for p in captured.model.parameters()]
    captured.optimizer.param_groups[0]["lr"] = 0.0
    captured.optimizer.param_groups[0]["weight_decay"] = 0.0
    for seed in range(3):
        captured(*batch(seed))
    assert_equal([p.detach() for p in captured.model.parameters()], before)


def test_a_change_is_captured_anew() -> None:
    captured, eager = make(), make(capture="off")
    assert_same(captured, eager, range(6))
    for method in (captured, eager):
        method.optimizer.param_groups[0]["momentum"] = 0.5
        method.n = 2  # type: ignore[attr-defined]
        next(method.model.parameters()).requires_grad_(False)
    assert_same(captured, eager, range(6, 12))
    assert captured.captures.replays == 3 + 5


def test_resume() -> None:
    """A replay goes on from what was loaded, whichever form it was saved in."""
    first, eager = make(), make(capture="off")
    assert_same(first, eager, range(6))
    model, held = copy.deepcopy(first.model.state_dict()), first.optimizer.state_dict()
    again = make()
    for seed in range(50, 55):  # its graph exists before the state comes
        again(*batch(seed))
    again.model.load_state_dict(model)
    again.optimizer.load_state_dict(copy.deepcopy(held))
    again.load_state_dict(first.state_dict())
    assert_same(again, eager, range(6, 14))
    assert again.captures.replays == 2 + 7


def test_two_shapes_share_their_memory() -> None:
    captured, eager = (make(model=network("wrn16_2"), capture=c) for c in ("on", "off"))
    large, small = {"rows": 128, "size": 32}, {"rows": 96, "size": 32}
    assert_same(captured, eager, range(3), **large)
    without = _reserved()
    assert_same(captured, eager, range(3, 5), **large)
    alone = _reserved()
    assert_same(captured, eager, range(5, 10), **small)
    # The second graph adds its gradients and its batch; its activations lie in the first one's.
    assert _reserved() - alone <= 0.25 * (alone - without)
    for seed in range(10, 16):  # in any order
        assert_same(captured, eager, range(seed, seed + 1), **(small if seed % 3 else large))
    assert captured.captures.replays == 2 + 2 + 6


def test_peak_memory() -> None:
    """From the capture on: no more than eager steps take, but for the batch that a graph reads."""
    given = batch(0, rows=128, size=32)
    peaks = {}
    for capture in ("off", "on"):
        method = make(model=network("wrn16_2"), capture=capture)
        for _ in range(WARM_UP):
            method(*given)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        for _ in range(4):
            result = method(*given)
        assert result.loss.isfinite()
        peaks[capture] = torch.cuda.max_memory_allocated() - before
        assert (method.captures.replays > 0) == (capture == "on")
        del method, result
    assert peaks["on"] <= peaks["off"] + given[0].nbytes + given[1].nbytes + 2**20, peaks


def test_results_and_gradients_are_kept() -> None:
    method = make()
    results = [method(*batch(seed)) for seed in range(8)]
    copies = [[value.clone() for value in result] for result in results]
    buffers = [p.grad for p in method.model.parameters()]
    method.optimizer.zero_grad(set_to_none=True)
    method(*batch(9))
    assert_equal([list(result) for result in results], copies)
    assert all(p.grad is g for p, g in zip(method.model.parameters(), buffers, strict=True))


def test_a_batch_that_comes_from_the_host_late() -> None:
    """The copy-in is ordered before the replay, and a batch may be overwritten after the call."""
    captured, eager = make(), make(capture="off")
    images, labels = batch(0)
    for seed in range(8):
        fresh = batch(seed)
        images.copy_(fresh[0])
        labels.copy_(fresh[1])
        result = captured(images, labels)
        images.zero_()
        labels.zero_()
        assert_equal(list(result), list(eager(*fresh)))


class Waits(nn.Module):
    """Reads a value on the host in every forward pass, or in those of a capture alone."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        if self.always or torch.cuda.is_current_stream_capturing():
            return x * (1 + 0 * x.mean().item())
        return x


@pytest.mark.parametrize("always", [True, False])
def test_a_model_that_waits_for_the_device_runs_eagerly(always: bool) -> None:
    """Noticed before the capture, or by it: then allocator and generators must still be usable."""
    captured = make(model=nn.Sequential(Waits(always), network()), capture="auto")
    eager = make(model=nn.Sequential(Waits(always), network()), capture="off")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_same(captured, eager, range(8))
    told = [str(one.message) for one in caught if "not captured" in str(one.message)]
    assert len(told) == 1 and (__file__ in told[0] or not always), told
    assert captured.captures.replays == 0 and captured.captures.why_eager is not None
    other, twin = make(), make(capture="off")  # and others can still be captured
    assert_same(other, twin, range(8))
    assert other.captures.replays == 5


def test_on_raises_where_the_capture_fails() -> None:
    method = make(model=nn.Sequential(Waits(False), network()))
    for seed in range(WARM_UP):
        method(*batch(seed))
    method.optimizer.zero_grad()
    before = state(method)
    with pytest.raises(RuntimeError, match="capture='on'"):
        method(*batch(9))
    assert_equal(state(method), before)


def test_a_method_on_another_stream() -> None:
    captured, eager = make(), make(capture="off")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        assert_same(captured, eager, range(8))
    torch.cuda.current_stream().wait_stream(stream)
    assert_same(captured, eager, range(8, 12))
    assert captured.captures.replays == 9


def _reserved() -> int:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved()

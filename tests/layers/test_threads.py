"""Models that run at the same time in threads of one process: none meets another's route."""

import copy
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.checkpoint import checkpoint

from entprop_fast import convert_dual_norm, create_method, route
from tests.layers import oracle
from tests.layers.oracle import OwnBatchNorm1d

pytestmark = pytest.mark.filterwarnings("ignore:left without an auxiliary half:UserWarning")
METHODS: list[tuple[str, dict[str, Any]]] = [
    ("entprop", {"n": 3, "accumulate": "all"}),
    ("advprop", {"n": 2}),
    ("entprop_pipelined", {}),
    ("entprop", {"n": 2, "amp": "bf16"}),
]


@pytest.fixture(autouse=True)
def _switching_often() -> Iterator[None]:
    """Let threads take turns within every call."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def network() -> nn.Sequential:
    """Make a network that ends in a batch norm that knows no routes."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 8),
        OwnBatchNorm1d(8),
        nn.Linear(8, 5),
    )


def at_once(tasks: list[Callable[[], None]]) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(len(tasks))

    def run(task: Callable[[], None]) -> None:
        try:
            start.wait()
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def training(seed: int) -> tuple[nn.Module, Callable[[], None]]:
    """Return a model, and what trains it for ten steps."""
    name, options = METHODS[seed]
    torch.manual_seed(seed)
    model = convert_dual_norm(network())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    method = create_method(name, model, optimizer, generator=generator, **options)
    data = torch.Generator().manual_seed(seed)

    def train() -> None:
        for _ in range(10):
            x = torch.rand(16, 3, 8, 8, generator=data)
            method(x, torch.randint(0, 5, (16,), generator=data))

    return model, train


def test_methods_in_threads_train_as_each_alone() -> None:
    """FOUND C1 and issue 16: to the bit, on models with a norm that knows no routes."""
    alone = [training(seed) for seed in range(len(METHODS))]
    for _, train in alone:
        train()
    together = [training(seed) for seed in range(len(METHODS))]
    at_once([train for _, train in together])
    for (model, _), (expected, _) in zip(together, alone, strict=True):
        assert not oracle.moved(model, oracle.snapshot(expected))


@pytest.mark.parametrize("copied", [False, True], ids=["two models", "a model and its copy"])
def test_routes_in_threads(copied: bool) -> None:
    """FOUND C1: it was an IndexError, from hooks of the whole process."""
    first = convert_dual_norm(network())
    second = copy.deepcopy(first) if copied else convert_dual_norm(network())
    models: list[Any] = [first, second, copy.deepcopy(second), copy.deepcopy(first)]
    targets: list[Any] = ["aux", "main", 2, "aux"]
    before = [oracle.snapshot(model) for model in models]

    def forwards(model: nn.Module, target: Any) -> Callable[[], None]:
        def task() -> None:
            for _ in range(50):
                with route(model, target):
                    model(torch.rand(4, 3, 8, 8))

        return task

    at_once([forwards(*pair) for pair in zip(models, targets, strict=True)])
    moved = [oracle.moved(model, old) for model, old in zip(models, before, strict=True)]
    halves = [{name.rpartition(".")[0] for name in names} for names in moved]
    assert halves == [{"1.aux_bn"}, {"1", "5"}, {"1", "1.aux_bn", "5"}, {"1.aux_bn"}]
    assert [model[1].num_batches_tracked for model in models] == [0, 50, 50, 0]


def test_no_hooks_of_the_process_and_no_trace() -> None:
    """FOUND C1: a route holds a plain batch norm by its class, and gives it back."""
    model: Any = convert_dual_norm(network())
    with route(model, "aux"):
        assert not torch_module._global_forward_pre_hooks
        assert not torch_module._global_forward_hooks
        assert isinstance(model[5], OwnBatchNorm1d) and type(model[5]) is not OwnBatchNorm1d
        assert type(model[5]).__name__ == "OwnBatchNorm1d"
        with route(model, "main"):
            assert type(model[5]) is OwnBatchNorm1d
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert type(twin[5]) is OwnBatchNorm1d
            assert vars(twin[5]).keys() == vars(model[5]).keys()
            assert not twin[1].inside
            with route(twin, "main"):
                assert model[1].num_main == 0 and twin[1].num_main is None
        with pytest.raises(ZeroDivisionError), route(model, 0):
            raise ZeroDivisionError
        assert type(model[5]) is not OwnBatchNorm1d
    assert type(model[5]) is OwnBatchNorm1d
    assert vars(model[5]).keys() == vars(OwnBatchNorm1d(8)).keys()


def test_a_parametrised_batch_norm_is_held_too() -> None:
    """FOUND C1: a neighbour; its class is its own already."""
    model: Any = convert_dual_norm(network())
    nn.utils.parametrizations.weight_norm(model[5], "weight")
    before = oracle.snapshot(model)
    with route(model, "aux"):
        y = model(x := torch.rand(4, 3, 8, 8))
        assert torch.equal(copy.deepcopy(model)(x), y)
    assert {name for name in oracle.moved(model, before) if "aux_bn" not in name} == set()
    model(x)
    assert oracle.moved(model, before) >= {"5.running_mean", "5.running_var"}


def test_a_checkpoint_of_an_outer_route_is_not_an_inner_one_s() -> None:
    """FOUND C1: a neighbour; each route answers for what ran in it."""
    model = convert_dual_norm(network()).double()

    def loss() -> Tensor:
        x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
        y: Tensor = checkpoint(model, x, use_reentrant=False)
        return y.square().sum()

    with route(model, "aux"):
        outer = loss()
        with route(model, "aux"):
            loss().backward()
        outer.backward()
    with pytest.raises(RuntimeError, match="BatchNorm1d"), route(model, "aux"):
        kept = loss()
    with route(model, "aux"):  # what was refused is not asked about again
        loss().backward()
    assert kept.isfinite()

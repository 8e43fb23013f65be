"""DistributedDataParallel over NCCL, with a group of one: the exchange itself, on a CUDA device."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import create_method
from entprop_fast.methods import METHODS
from tests.methods.support import assert_equal, batch, dual_network, parameters, sgd
from tests.processes import group_of_one

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """In place of this folder's: deterministic convolutions, and a group over NCCL."""
    before = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.cuda.set_device(CUDA)
    with group_of_one("nccl"):
        yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def network() -> nn.Module:
    return dual_network(dtype=torch.float32).to(CUDA)


def on_device(seed: int) -> tuple[Tensor, Tensor]:
    images, labels = batch(seed=seed, dtype=torch.float32)
    return images.to(CUDA), labels.to(CUDA)


def source() -> torch.Generator:
    return torch.Generator(CUDA).manual_seed(5)


@pytest.mark.parametrize("name", METHODS)
def test_a_wrapped_model_takes_the_steps_of_a_bare_one_and_waits_for_nothing(name: str) -> None:
    bare, inner = network(), network()
    model = DistributedDataParallel(inner, device_ids=[CUDA.index])
    method, wrapped = (
        create_method(name, m, sgd(m), generator=source(), capture="off", max_grad_norm=1.0)
        for m in (bare, model)
    )
    batches = [on_device(seed) for seed in range(4)]
    for seed, one in enumerate(batches):
        method(*one)
        if seed == 3:  # the set of parameters with gradients is known, and read no more
            torch.cuda.set_sync_debug_mode("error")
        try:
            wrapped(*one)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert_equal(parameters(inner), parameters(bare))
    assert distributed.get_backend() == "nccl"


def test_steps_are_eager_with_one_warning() -> None:
    model = DistributedDataParallel(network(), device_ids=[CUDA.index])
    method = create_method("entprop", model, sgd(model), generator=source())
    with pytest.warns(RuntimeWarning, match="a process group is initialised") as told:
        for seed in range(6):
            method(*on_device(seed))
    assert len([one for one in told if one.category is RuntimeWarning]) == 1
    assert method.captures.replays == 0
    with pytest.raises(ValueError, match="a process group is initialised"):
        create_method("entprop", model, sgd(model), capture="on")

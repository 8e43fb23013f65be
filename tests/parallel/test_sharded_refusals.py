"""What a step of a network that is split would pass over or get wrong is refused by name."""

import copy
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import Replicate, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from entprop_fast import convert_dual_norm, create_method, strip_auxiliary
from entprop_fast.methods import GPaCo
from entprop_fast.parallel.sharded_checkpoint import load_sharded, save_sharded
from tests.methods.support import (
    CLASSES,
    assert_equal,
    batch,
    dual_network,
    everything,
    make,
    plain_network,
    sgd,
)
from tests.processes import group_of_one


@pytest.fixture(autouse=True)
def process_group() -> Iterator[None]:
    with group_of_one(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of FullyShardedDataParallel, torch's own
        yield


def split() -> nn.Sequential:
    model = dual_network()
    fully_shard(model)
    return model


def inner() -> nn.Sequential:
    model = dual_network()
    fully_shard(model.get_submodule("conv2"))
    return model


def older() -> nn.Module:
    cpu = torch.device("cpu")
    return FullyShardedDataParallel(dual_network(), device_id=cpu, use_orig_params=True)


def around() -> nn.Module:
    return DistributedDataParallel(split(), init_sync=False)  # which torch would refuse


def copies_alone() -> nn.Sequential:
    """As what another parallelism leaves: nothing is split."""
    model = dual_network()
    mesh = init_device_mesh("cpu", (1,))
    fully_shard(model)
    head = model.get_submodule("head")
    head.bias = nn.Parameter(distribute_tensor(torch.zeros(CLASSES).double(), mesh, [Replicate()]))
    return model


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (inner, r"model\.conv2 was given to fully_shard and model was not"),
        (older, r"model is a FullyShardedDataParallel.*fully_shard"),
        (around, r"model is a DistributedDataParallel around fully_shard"),
        (copies_alone, r"model\.head\.bias lies on .*expected a mesh of all"),
    ],
)
def test_what_is_split_otherwise(model: Callable[[], nn.Module], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make(model=model())


def test_a_criterion_that_is_split() -> None:
    criterion = GPaCo(CLASSES).double()
    fully_shard(criterion)
    with pytest.raises(ValueError, match="criterion was given to fully_shard"):
        make(model=dual_network(), criterion=criterion)


def test_states_that_are_split_twice() -> None:
    model = split()
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match=r"optimizer is a ZeroRedundancyOptimizer.*SGD, AdamW"):
        create_method("entprop", model, optimizer)


def test_steps_of_states_that_are_split_are_not_captured() -> None:
    model = DistributedDataParallel(dual_network())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="capture='on'"):
        create_method("entprop", model, optimizer, capture="on")
    with pytest.raises(ValueError, match="fully_shard gathers the parameters in every pass"):
        make(model=split(), capture="on")


def test_norms_are_converted_before_and_stripped_after_gathering() -> None:
    plain = plain_network()
    fully_shard(plain)
    with pytest.raises(ValueError, match=r"convert_dual_norm: model is split.*convert first"):
        convert_dual_norm(plain)
    for model, place in ((split(), "model"), (inner(), r"model\.conv2")):
        with pytest.raises(
            ValueError, match=rf"strip_auxiliary: {place} is split.*full_state_dict"
        ):
            strip_auxiliary(model)


def test_a_copy_of_the_method() -> None:
    with pytest.raises(TypeError, match="fully_shard split cannot be copied"):
        copy.deepcopy(make(model=split()))


def test_a_step_that_would_average_nothing() -> None:
    """And one that would mix in what an earlier batch has left to be averaged."""
    model = split()
    method = make(model=model, mixup=0.0)
    model.set_requires_gradient_sync(False)  # type: ignore[operator]
    before = everything(method)["parameters"]
    with pytest.raises(RuntimeError, match=r"set_requires_gradient_sync\(False\).*not taken"):
        method(*batch())
    model.set_requires_gradient_sync(True)  # type: ignore[operator]
    with pytest.raises(ValueError, match="holds gradients that were added up"):
        method(*batch())
    assert_equal(everything(method)["parameters"], before)
    method.backward(*batch())
    method.optimizer.step()
    method(*batch())


def test_a_batch_that_only_the_model_can_refuse_leaves_it_usable() -> None:
    """Its forward fails half-way, between what torch's hooks do before and after."""
    one, other = (make(model=model, mixup=0.0) for model in (split(), dual_network()))
    images, labels = batch()
    before = everything(one)
    with pytest.raises(ValueError, match="the model cannot take them"):
        one(images[:, :1], labels)
    assert_equal(everything(one), before)
    results = [list(method(images, labels)) for method in (one, other)]
    assert_equal(*results, tolerance=1e-12)


def test_a_replaced_parameter() -> None:
    model = split()
    method = make(model=model)
    head = model.get_submodule("head")
    head.bias = nn.Parameter(torch.zeros(CLASSES, dtype=torch.float64))
    method.optimizer.param_groups[0]["params"].append(head.bias)
    with pytest.raises(ValueError, match=r"model\.head\.bias was replaced"):
        method(*batch())


def test_checkpoints(tmp_path: Path) -> None:
    """Each has a folder of its own, and is loaded when it is whole."""
    method = make(model=split())
    with pytest.raises(FileNotFoundError, match="holds no whole checkpoint"):
        load_sharded(method, tmp_path)
    save_sharded(method, tmp_path / "one")
    assert not method.optimizer.state  # none before the first step
    with pytest.raises(FileExistsError, match="give each a folder of its own"):
        save_sharded(method, tmp_path / "one")
    method(*batch())
    load_sharded(method, tmp_path / "one")
    assert not method.optimizer.state and method.rows == 0
    model = DistributedDataParallel(dual_network())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1)
    zero = create_method("entprop", model, optimizer)
    with pytest.raises(ValueError, match="consolidate_state_dict"):
        save_sharded(zero, tmp_path / "two")


def test_the_optimizer_is_made_after_the_split() -> None:
    model = dual_network()
    optimizer = sgd(model)
    fully_shard(model)
    with pytest.raises(ValueError, match="optimizer lacks"):
        create_method("entprop", model, optimizer)

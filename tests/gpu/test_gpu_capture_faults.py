"""On a CUDA device: captures beside a loss that is still held, and cuDNN's choice before them."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from entprop_fast.torch_internals import stale_streams_redirected
from tests.gpu.test_gpu_capture import WARM_UP, assert_same, batch, make, network
from tests.processes import group_of_one

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """In place of this folder's: convolutions that are the same in each run."""
    before = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    yield
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def _told(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(one.message) for one in caught if "not captured" in str(one.message)]


def test_a_loss_that_is_still_held() -> None:
    """Captured where torch can move its nodes; else one warning names it, and nothing is wrong."""
    model, twin = network(), network()
    images, labels = batch(0)
    losses = [F.cross_entropy(net(images), labels) for net in (model, twin)]
    for loss in losses:
        loss.backward()
    captured, eager = make(model=model, capture="auto"), make(model=twin, capture="off")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_same(captured, eager, range(8))
    if stale_streams_redirected() is None:
        (told,) = _told(caught)
        assert "a tensor of shape () from NllLossBackward0 holds" in told
    else:
        assert not _told(caught) and captured.captures.replays == 8 - WARM_UP
        assert stale_streams_redirected() is False


def test_a_wrapper_that_holds_nodes() -> None:
    """One made on the default stream, as in anybody's script."""
    with group_of_one("nccl"):
        method = make(model=DistributedDataParallel(network()), capture="auto")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for seed in range(8):
                method(*batch(seed))
        if stale_streams_redirected() is None:
            assert "such as a DistributedDataParallel" in _told(caught)[0]
        else:
            assert not _told(caught) and method.captures.replays == 8 - WARM_UP


def test_convolutions_chosen_by_trial() -> None:
    torch.backends.cudnn.deterministic = False
    method = make(amp="bf16")
    for seed in range(8):
        assert method(*batch(seed)).loss.isfinite()
        assert not torch.backends.cudnn.benchmark
    assert method.captures.replays == 8 - WARM_UP

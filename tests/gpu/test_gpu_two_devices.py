"""Two processes over NCCL, a device each; the same work over gloo, on the CPU."""

from __future__ import annotations

import pytest
import torch

from tests.gpu.two_ranks import STEPS, Found, in_two_ranks, train
from tests.methods.support import assert_equal

TWO_DEVICES = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]
WARM_UP = 3


@pytest.fixture(scope="module", params=["gloo", pytest.param("nccl", marks=TWO_DEVICES)])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ranks(backend: str, tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    return in_two_ranks(tmp_path_factory.mktemp("ranks"), backend)


def test_both_ranks_hold_one_network(ranks: list[Found]) -> None:
    one, other = ranks
    for way in one:
        assert_equal(one[way]["parameters"], other[way]["parameters"])


def test_exact_ranks_train_what_one_process_does(ranks: list[Found], backend: str) -> None:
    alone = train(torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu"), exact=True)
    for rank in ranks:
        assert_equal(rank["exact"]["parameters"], alone["parameters"], tolerance=1e-9)
        # Apart, the ranks choose other rows and normalise by other statistics.
        difference = rank["eager"]["parameters"]["head.weight"] - alone["parameters"]["head.weight"]
        assert difference.abs().max() > 1e-6


def test_captured_segments_train_what_eager_steps_do(ranks: list[Found], backend: str) -> None:
    """Two graphs, NCCL's exchange between them."""
    for rank in ranks:
        if backend == "gloo":  # nothing is captured on a CPU
            assert "captured" not in rank and rank["eager"]["replays"] == 0
            continue
        assert rank["captured"]["replays"] == STEPS - WARM_UP
        assert_equal(rank["captured"]["parameters"], rank["eager"]["parameters"], tolerance=1e-9)

"""Values of every GPU kernel against float64, a stream of its own, and graph replay."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from entprop_fast.kernels.loss_and_entropy import loss_and_entropy
from entprop_fast.kernels.select_topk import select_topk
from tests.kernel_cases import dual_batch_norm as norm_cases
from tests.kernel_cases import loss_and_entropy as loss_cases
from tests.kernel_cases import perturb as perturb_cases
from tests.kernel_cases import select_topk as topk_cases

NORM = SimpleNamespace(forward=dual_batch_norm, backward=dual_batch_norm_backward)


@pytest.fixture(scope="module")
def perturb() -> SimpleNamespace:
    """The CUDA C++ ops, where the extension was built with nvcc."""
    pytest.importorskip("entprop_fast.ops")
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    if not has_kernel("entprop_fast::perturb_", "CUDA"):
        pytest.skip("entprop_fast._C was built without nvcc")
    ops = torch.ops.entprop_fast
    return SimpleNamespace(
        gather_perturb=ops.gather_perturb.default,
        gather_perturb_out=ops.gather_perturb.out,
        perturb_=ops.perturb_.default,
    )


@pytest.mark.parametrize("case", topk_cases.CASES)
def test_select_topk(case: str) -> None:
    topk_cases.CASES[case](select_topk, "cuda")


@pytest.mark.parametrize("case", loss_cases.CASES)
def test_loss_and_entropy(case: str) -> None:
    loss_cases.CASES[case](loss_and_entropy, "cuda")


@pytest.mark.parametrize("case", norm_cases.CASES)
def test_dual_batch_norm(case: str) -> None:
    norm_cases.CASES[case](NORM, "cuda")


@pytest.mark.parametrize("case", perturb_cases.CASES)
def test_perturb(case: str, perturb: SimpleNamespace) -> None:
    perturb_cases.CASES[case](perturb, "cuda")


def _select(scores: torch.Tensor) -> Any:
    return select_topk(scores, 9)


def _normalize(scores: torch.Tensor) -> Any:
    x = scores[:48].reshape(4, 3, 2, 2)
    return dual_batch_norm(x, *[None] * 9, 2, True, True, 0.1, 0.1, 1e-5, 1e-5, True)[0]


def _loss(scores: torch.Tensor) -> Any:
    labels = torch.zeros(8, dtype=torch.int64, device=scores.device)
    lam = torch.ones((), device=scores.device)
    return loss_and_entropy(scores.reshape(8, -1), labels, labels, lam, 0.0, "entropy")[0]


@pytest.mark.parametrize("launch", [_select, _normalize, _loss])
def test_graph_replay_reads_changed_inputs(launch: Callable[[torch.Tensor], Any]) -> None:
    given = torch.randn(64, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # warms up, on a stream that is not the default one
        launch(given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = launch(given)
    given.copy_(torch.randn(64))
    graph.replay()
    assert torch.equal(captured, launch(given))


def test_more_than_two_to_the_31_elements() -> None:
    """The last row, alone in the auxiliary group, lies past the reach of 32-bit offsets."""
    shape = (2**15 + 64, 64, 32, 32)  # 2^31 + 2^22 elements, 4.3 GB
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of free GPU memory")
    layout = torch.channels_last
    x = torch.empty(shape, dtype=torch.float16, device="cuda", memory_format=layout).zero_()
    last = torch.randn(1, 64, 32, 32, device="cuda").half()
    x[-1:] = last
    settings = (True, True, 0.1, 0.1, 1e-5, 1e-5, False)
    y, mean, _, _ = dual_batch_norm(x, *[None] * 9, shape[0] - 1, *settings)
    alone, mean_alone, _, _ = dual_batch_norm(last, *[None] * 9, 0, *settings)
    torch.testing.assert_close(y[-1:], alone)
    torch.testing.assert_close(mean[1], mean_alone[1])
    assert (mean[0] == 0).all() and (y[0] == 0).all()

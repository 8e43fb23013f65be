"""Values of every GPU kernel against float64. tests/ops has those of the ops on CUDA."""

from types import SimpleNamespace

import pytest

from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from entprop_fast.kernels.loss_and_entropy import loss_and_entropy
from entprop_fast.kernels.prime_chains import prime_chains
from entprop_fast.kernels.select_topk import select_topk
from tests.gpu.cuda_ops import cuda_perturb
from tests.kernel_cases import dual_batch_norm as norm_cases
from tests.kernel_cases import dual_batch_norm_sums as sum_cases
from tests.kernel_cases import loss_and_entropy as loss_cases
from tests.kernel_cases import perturb as perturb_cases
from tests.kernel_cases import prime_chains as prime_cases
from tests.kernel_cases import select_topk as topk_cases

NORM = SimpleNamespace(forward=dual_batch_norm, backward=dual_batch_norm_backward)


pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", topk_cases.CASES)
def test_select_topk(case: str) -> None:
    topk_cases.CASES[case](select_topk, "cuda")


@pytest.mark.parametrize("case", loss_cases.CASES)
def test_loss_and_entropy(case: str) -> None:
    loss_cases.CASES[case](loss_and_entropy, "cuda")


@pytest.mark.parametrize("case", norm_cases.CASES)
def test_dual_batch_norm(case: str) -> None:
    norm_cases.CASES[case](NORM, "cuda")


@pytest.mark.parametrize("case", sum_cases.CASES)
def test_sums_in_the_norm(case: str) -> None:
    sum_cases.CASES[case](NORM, "cuda")


@pytest.mark.parametrize("case", perturb_cases.CASES)
def test_perturb(case: str) -> None:
    perturb_cases.CASES[case](cuda_perturb(), "cuda")


@pytest.mark.parametrize("case", prime_cases.CASES)
def test_prime_chains(case: str) -> None:
    prime_cases.CASES[case](prime_chains, "cuda")

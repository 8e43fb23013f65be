"""`loss_and_entropy` under Triton's interpreter."""

import pytest

from entprop_fast.kernels.loss_and_entropy import loss_and_entropy
from tests.kernel_cases.loss_and_entropy import CASES


@pytest.mark.parametrize("case", CASES)
def test_values(case: str) -> None:
    CASES[case](loss_and_entropy, "cpu")

"""`select_topk` under Triton's interpreter."""

import pytest

from entprop_fast.kernels.select_topk import select_topk
from tests.kernel_cases.select_topk import CASES


@pytest.mark.parametrize("case", CASES)
def test_values(case: str) -> None:
    CASES[case](select_topk, "cpu")

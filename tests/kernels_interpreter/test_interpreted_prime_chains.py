"""`prime_chains` under Triton's interpreter."""

import pytest

from entprop_fast.kernels.prime_chains import prime_chains
from tests.kernel_cases.prime_chains import CASES


@pytest.mark.parametrize("case", CASES)
def test_values(case: str) -> None:
    CASES[case](prime_chains, "cpu")

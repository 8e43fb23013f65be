"""The C++ kernel of prime_chains: the values of the reference."""

import pytest

from entprop_fast.ops.prime_chains import OP
from tests.kernel_cases.prime_chains import CASES
from tests.ops.conftest import needs_extension


@needs_extension
@pytest.mark.parametrize("name", CASES)
def test_cpp_gives_the_values_of_the_reference(name: str) -> None:
    CASES[name](OP, "cpu")

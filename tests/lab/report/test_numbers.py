"""Numbers as every table shows them."""

from __future__ import annotations

import pytest

from entprop_fast.lab.report import numbers, progress


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.number(None), "–"),
        (numbers.number(81.25, 2), "81.25"),
        (numbers.difference(3.14), "+3.1"),
        (numbers.difference(-0.5, 2), "-0.50"),
        (numbers.plus_minus(80.3, None), "80.3"),
        (numbers.plus_minus(80.3, 1.46), "80.3 ± 1.5"),
        *((numbers.probability(p), said) for p, said in ((None, "–"), (0.034, "0.03"))),
        *((numbers.probability(p), said) for p, said in ((0.01, "0.01"), (0.0099, "0.0099"))),
        (numbers.probability(9e-5), "< .0001"),
        *((numbers.three_digits(v), said) for v, said in ((81.28, "81.3"), (-1.94, "-1.94"))),
        (numbers.three_digits(0.0654), "0.065"),
        (numbers.of_column("SA", 5.25), "5.2"),
        (numbers.of_column("cost", 5.25), "5.25"),
        (numbers.of_column("seed", 3), "3"),
        (numbers.of_column("RA", None), "–"),
        (progress.duration(progress.time_left(10.0, 2.0, 5.0)), "15 s"),
    ],
)
def test_numbers(written: str, expected: str) -> None:
    assert written == expected

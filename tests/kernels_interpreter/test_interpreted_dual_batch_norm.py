"""The dual batch norm's launchers under Triton's interpreter."""

from types import SimpleNamespace

import pytest

from entprop_fast.kernels import dual_batch_norm_cut
from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from tests.kernel_cases.dual_batch_norm import CASES
from tests.kernel_cases.dual_batch_norm_sums import CASES as SUMS

OP = SimpleNamespace(forward=dual_batch_norm, backward=dual_batch_norm_backward)


@pytest.mark.parametrize("case", CASES)
def test_values(case: str) -> None:
    CASES[case](OP, "cpu")


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles and few chunks, so that tests of a bearable size run through every loop."""
    small = {"tile_bytes": 1024, "plane_tile_bytes": 1024, "max_chunks": 5, "merge_size": 32}
    small["sum_bytes"] = 2**20  # never more chunks than that
    monkeypatch.setattr(dual_batch_norm_cut, "CUT", dual_batch_norm_cut.CUT._replace(**small))


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("name", ["many-tiles", "large-mean", "special-values"])
def test_several_tiles_a_chunk(name: str, layout: str, small_tiles: None) -> None:
    CASES[f"{name}-{layout}"](OP, "cpu")


@pytest.mark.parametrize("case", SUMS)
def test_sums_and_counters(case: str) -> None:
    SUMS[case](OP, "cpu")


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("name", ["many-tiles", "residual"])
def test_sums_of_several_tiles_a_chunk(name: str, layout: str, small_tiles: None) -> None:
    SUMS[f"{name}-{layout}"](OP, "cpu")

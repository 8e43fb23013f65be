"""The dual batch norm's launchers under Triton's interpreter."""

from types import SimpleNamespace

import pytest

from entprop_fast.kernels import dual_batch_norm_plan
from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from tests.kernel_cases.dual_batch_norm import CASES

OP = SimpleNamespace(forward=dual_batch_norm, backward=dual_batch_norm_backward)


@pytest.mark.parametrize("case", CASES)
def test_values(case: str) -> None:
    CASES[case](OP, "cpu")


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("name", ["many-tiles", "large-mean", "special-values"])
def test_several_tiles_a_chunk(name: str, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small tiles and few chunks, so that tests of a bearable size run through every loop."""
    monkeypatch.setattr(dual_batch_norm_plan, "TILE_BYTES", 1024)
    monkeypatch.setattr(dual_batch_norm_plan, "PLANE_TILE_BYTES", 1024)
    monkeypatch.setattr(dual_batch_norm_plan, "MAX_CHUNKS", 5)
    monkeypatch.setattr(dual_batch_norm_plan, "MERGE_SIZE", 32)
    CASES[f"{name}-{layout}"](OP, "cpu")

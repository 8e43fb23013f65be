"""select_topk: the head of a stable descending sort, NaN first, for any scores."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entprop_fast.ops import entropy_topk, loss_and_entropy, select_topk

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SCORE = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, float("inf"), -float("inf")]), st.floats(width=32)
)


def by_hand(score: list[float], k: int) -> list[int]:
    """Python's stable sort, with NaN as the greatest."""

    def key(row: int) -> tuple[bool, float]:
        value = score[row]
        return (False, 0.0) if value != value else (True, -value)

    return sorted(range(len(score)), key=key)[:k]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SCORE, min_size=1, max_size=70), st.data())
def test_any_scores(ops: SimpleNamespace, score: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(score)))
    index = ops.select_topk(torch.tensor(score), k)
    assert index.dtype == torch.int64
    assert index.tolist() == by_hand(score, k)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes_and_strides(ops: SimpleNamespace, dtype: torch.dtype) -> None:
    score = torch.randn(3, 50).to(dtype).T[:, 1]
    assert ops.select_topk(score, 20).tolist() == by_hand(score.tolist(), 20)


def test_entropy_topk_is_both(backend: str) -> None:
    logits, labels = torch.randn(9, 5), torch.randint(5, (9,))
    result = entropy_topk(logits, labels, 4, score="margin")
    expected = loss_and_entropy(logits, labels, score="margin")
    assert torch.equal(result.score, expected.score) and torch.equal(result.loss, expected.loss)
    assert torch.equal(result.selected, select_topk(expected.score, 4))

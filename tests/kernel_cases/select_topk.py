"""Value checks of `select_topk(score, k)`."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

SelectTopk = Callable[[Tensor, int], Tensor]


def _expected(score: Tensor, k: int) -> Tensor:
    """Python's stable sort: NaN first, then descending, ties to the lower index."""
    values = score.double().tolist()
    order = sorted(range(len(values)), key=lambda i: (values[i] == values[i], -values[i]))
    return torch.tensor(order[:k], dtype=torch.int64)


def _scores(kind: str, rows: int, generator: torch.Generator) -> Tensor:
    score = torch.randn(rows, generator=generator)
    if kind == "ties":
        return score.mul(2).round()
    if kind == "constant":
        return torch.full((rows,), 0.25)
    if kind == "special":
        special = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0, -0.0, 1e-45, -torch.nan])
        return special[torch.randint(7, (rows,), generator=generator)]
    return score


def check(kind: str, rows: int, k: int, dtype: torch.dtype, op: SelectTopk, device: str) -> None:
    """Compare the selection of one batch of scores, also strided, and leave the scores alone."""
    score = _scores(kind, rows, torch.Generator().manual_seed(rows)).to(dtype)
    expected = _expected(score, k)
    given = score.to(device)
    index = op(given, k)
    assert index.dtype == torch.int64
    assert torch.equal(index.cpu(), expected)
    assert torch.equal(given.cpu().nan_to_num(7.0), score.nan_to_num(7.0))
    strided = torch.stack([score, torch.zeros_like(score)], dim=1).to(device)[:, 0]
    assert torch.equal(op(strided, k).cpu(), expected)


CASES = {
    f"{kind}-{rows}-{k}-{dtype}".replace("torch.", ""): partial(check, kind, rows, k, dtype)
    for kind in ("normal", "ties", "constant", "special")
    for rows, k in ((1, 1), (40, 40), (16, 3), (133, 26), (300, 1))
    for dtype in (torch.float32, torch.bfloat16)
} | {
    "none": partial(check, "normal", 5, 0, torch.float32),
    "float16": partial(check, "ties", 129, 129, torch.float16),
}

"""Every formula of the reference against plain Python or numpy in float64."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from entprop_fast import devices, reference

MAX_EXAMPLES = settings(max_examples=60, deadline=None)
finite_logits = npst.arrays(
    np.float64,
    npst.array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.floats(-50, 50),
)
unit = st.floats(0, 1)
few_values = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 2.0])


def probabilities(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def close(actual: Tensor, expected: npt.ArrayLike, tolerance: float = 1e-12) -> None:
    assert actual.dtype == torch.float64
    np.testing.assert_allclose(actual.numpy(), np.asarray(expected), rtol=tolerance, atol=tolerance)


def test_mix() -> None:
    images = np.random.default_rng(0).random((4, 3, 2, 2))
    partners, lam = [2, 0, 3, 1], 0.3
    expected = [lam * images[i] + (1 - lam) * images[p] for i, p in enumerate(partners)]
    share = torch.tensor(lam, dtype=torch.float64)
    close(reference.mix(torch.from_numpy(images), torch.tensor(partners), share), expected)


def test_mixed_loss_weighs_the_own_label_with_lam() -> None:
    own, partners = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 7.0])
    loss = reference.mixed_loss(own, partners, torch.tensor(0.25))
    assert loss.tolist() == [0.25 * 1 + 0.75 * 5, 0.25 * 2 + 0.75 * 7]


@pytest.mark.parametrize(
    ("beta", "float64"),
    [*((beta, True) for beta in (1e-300, 0.015, 0.2, 1.0, 3.0)), (1e-3, False), (3.0, False)],
)
def test_lam_is_beta_distributed_and_not_folded(
    beta: float, float64: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FOUND C17: torch draws from no gamma distribution on Apple's GPUs: numbers of our own."""
    if not float64:
        monkeypatch.setattr(devices, "WITHOUT_FLOAT64", {"cpu"})
    dtype = torch.float64 if float64 else torch.float32
    source, images = torch.Generator().manual_seed(0), torch.empty(1, dtype=dtype)
    lam = np.array([reference.draw_lam(beta, images, source).item() for _ in range(4000)])
    variance = 1 / (4 * (2 * beta + 1))  # of Beta(beta, beta), whose mean is 1/2
    assert 0 <= lam.min() and lam.max() <= 1
    assert abs(lam.mean() - 0.5) < 5 * math.sqrt(variance / len(lam))
    assert abs(lam.var() / variance - 1) < 0.1


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.75, 0.99, 1.0])
def test_a_box_covers_one_minus_lam_where_the_edges_leave_it(lam: float) -> None:
    images, share = torch.empty(1, 1, 20, 12), torch.tensor(lam, dtype=torch.float64)
    height, width = (int(side * math.sqrt(1 - lam)) // 2 * 2 for side in (20, 12))
    tallest, widest, rows_seen, columns_seen = 0, 0, set[int](), set[int]()
    for seed in range(200):
        source = torch.Generator().manual_seed(seed)
        box = reference.draw_box(share, images, source)
        y, x = torch.rand(2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert box.shape == (20, 12) and box.dtype == torch.bool
        rows, columns = (box.any(dim).nonzero().flatten().tolist() for dim in (1, 0))
        assert box.sum() == len(rows) * len(columns)  # a rectangle
        for found, middle, side, pixels in ((rows, y, height, 20), (columns, x, width, 12)):
            at = [i for i in range(pixels) if -side <= 2 * (i - int(middle * pixels)) < side]
            assert found == at or not box.any()
        tallest, widest = max(tallest, len(rows)), max(widest, len(columns))
        rows_seen.update(rows)
        columns_seen.update(columns)
    assert (tallest, widest) == ((height, width) if height and width else (0, 0))  # not cut
    assert not tallest or len(rows_seen) + len(columns_seen) == 20 + 12  # every pixel has its turn


def test_paste_takes_the_box_from_the_partner() -> None:
    images = torch.rand(3, 2, 4, 5, dtype=torch.float64)
    box = torch.zeros(4, 5, dtype=torch.bool)
    box[1:3, 2:] = True
    mixed, share = reference.paste(images, torch.tensor([2, 0, 1]), box)
    expected = images.clone()
    expected[:, :, 1:3, 2:] = images[[2, 0, 1], :, 1:3, 2:]
    assert torch.equal(mixed, expected)
    close(share, 1 - 6 / 20)


def test_a_start_is_uniform_within_eps() -> None:
    images = torch.empty(1, 2, 30, 30, dtype=torch.float64)
    eps = torch.tensor([0.1, 0.3], dtype=torch.float64).view(2, 1, 1)
    start = reference.draw_start(20, images, eps, torch.Generator().manual_seed(0))
    assert start.shape == (20, 2, 30, 30)
    for channel, radius in ((0, 0.1), (1, 0.3)):
        values = (start[:, channel] / radius).numpy()
        assert -1 <= values.min() < -0.99 and 0.99 < values.max() < 1
        assert abs(values.mean()) < 0.03 and abs(values.var() - 1 / 3) < 0.01


@MAX_EXAMPLES
@given(finite_logits.filter(lambda logits: logits.shape[1] > 1), st.data())
def test_attack_losses(logits: np.ndarray, data: st.DataObject) -> None:
    rows, classes = logits.shape
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    wrong = [
        max(z for c, z in enumerate(row) if c != y) for row, y in zip(logits, labels, strict=True)
    ]
    expected = [w - row[y] for w, row, y in zip(wrong, logits, labels, strict=True)]
    close(reference.cw_loss(torch.from_numpy(logits), torch.tensor(labels)), expected)

    clean = np.random.default_rng(0).normal(size=logits.shape)
    p, q = probabilities(clean), probabilities(logits)
    divergence = (p * (np.log(p) - np.log(q))).sum(1)
    close(
        reference.trades_loss(torch.from_numpy(logits), torch.from_numpy(clean)), divergence, 1e-11
    )


def test_trades_has_no_gradient_at_the_clean_logits_and_ignores_impossible_classes() -> None:
    clean = torch.tensor([[0.3, -1.0, -math.inf]], dtype=torch.float64)
    logits = clean.clone().requires_grad_()
    loss = reference.trades_loss(logits, clean)
    close(loss.detach(), [0.0])
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    close(gradient, [[0.0] * 3])


def test_lam_has_the_dtype_of_the_images() -> None:
    lam = reference.draw_lam(1.0, torch.empty(1, dtype=torch.bfloat16), None)
    assert lam.dtype == torch.bfloat16 and lam.ndim == 0


def test_partners_are_a_permutation() -> None:
    partners = reference.draw_partners(torch.empty(50, 1), torch.Generator().manual_seed(0))
    assert sorted(partners.tolist()) == list(range(50)) != partners.tolist()


@MAX_EXAMPLES
@given(finite_logits)
def test_entropy(logits: np.ndarray) -> None:
    expected = [-sum(q * math.log(q) for q in row if q > 0) for row in probabilities(logits)]
    close(reference.entropy(torch.from_numpy(logits)), expected)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        *(([3.0] * classes, math.log(classes)) for classes in (1, 2, 10, 1000)),
        *(([low, 0.0, low], 0.0) for low in (-1e4, -math.inf)),
        ([1.0, -math.inf, 1.0], math.log(2)),  # impossible classes are ignored
    ],
    ids=lambda value: f"{value:.3}" if isinstance(value, float) else str(len(value)),
)
def test_entropy_of_uniform_and_of_certain_predictions(row: list[float], expected: float) -> None:
    close(reference.entropy(torch.tensor([row]).double()), [expected])


@pytest.mark.parametrize("row", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]], ids=str)
def test_entropy_of_no_distribution_is_nan(row: list[float]) -> None:
    assert reference.entropy(torch.tensor([row])).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_half_precision_logits_are_float32(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.1, 2.0, -1.0]], dtype=dtype)
    for score in reference.SCORES:
        value = reference.uncertainty(logits, torch.tensor([1]), score)
        assert value.dtype == torch.float32
    expected = reference.entropy(logits.double())
    torch.testing.assert_close(reference.entropy(logits).double(), expected, rtol=1e-6, atol=1e-6)


@MAX_EXAMPLES
@given(finite_logits.filter(lambda logits: logits.shape[1] > 1), st.data())
def test_scores(logits: np.ndarray, data: st.DataObject) -> None:
    rows, classes = logits.shape
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    p, expected = probabilities(logits).tolist(), {}
    log_sum = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    expected["confidence"] = [-max(row) for row in p]
    expected["cross_entropy"] = [log_sum[i] - logits[i, y] for i, y in enumerate(labels)]
    expected["margin"] = [
        max(q for c, q in enumerate(row) if c != y) - row[y]
        for row, y in zip(p, labels, strict=True)
    ]
    expected["energy"] = [-float(z) for z in log_sum]
    expected["gini"] = [1 - sum(q * q for q in row) for row in p]
    for score, values in expected.items():
        given_by = reference.uncertainty(torch.from_numpy(logits), torch.tensor(labels), score)
        close(given_by, values, 1e-11)


def test_random_score_comes_from_the_generator() -> None:
    def score(source: torch.Generator | None) -> Tensor:
        logits = torch.zeros(6, 3, dtype=torch.float64)
        return reference.uncertainty(logits, torch.zeros(6).long(), "random", source)

    expected = torch.rand(6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    before = torch.get_rng_state()
    assert torch.equal(score(torch.Generator().manual_seed(4)), expected)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(score(None), expected)


@pytest.mark.parametrize(
    ("k", "rows", "m"),
    [
        (0.2, 64, 13),  # 12.8
        (0.2, 128, 26),
        (0.6, 128, 77),
        (0.5, 5, 3),  # 2.5 rounds up
        (0.5, 1, 1),
        (0.1, 4, 1),  # 0.4, but at least one
        (1e-9, 1000, 1),
        (1.0, 7, 7),
        (0.35, 10, 4),  # 3.5 in float64 too
        (0.145, 100, 14),  # 14.5 in decimals, less than that in float64
    ],
)
def test_num_selected(k: float, rows: int, m: int) -> None:
    assert reference.num_selected(k, rows) == m


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 100_000))
def test_num_selected_is_within_the_batch(k: float, rows: int) -> None:
    m = reference.num_selected(k, rows)
    assert 1 <= m <= rows
    assert m == max(1, int(np.floor(np.float64(k) * rows + 0.5)))


@settings(max_examples=200, deadline=None)
@given(st.lists(few_values | st.floats(width=32), min_size=1, max_size=40), st.data())
@example([0.0, -0.0, 0.0, -0.0], None)
@example([math.nan, math.inf, math.nan, -math.inf], None)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_select_topk(dtype: torch.dtype, scores: list[float], data: st.DataObject | None) -> None:
    m = len(scores) if data is None else data.draw(st.integers(1, len(scores)))
    rank = [(0.0, 0.0, i) if math.isnan(s) else (1.0, -s, i) for i, s in enumerate(scores)]
    expected = sorted(range(len(scores)), key=rank.__getitem__)
    assert reference.select_topk(torch.tensor(scores, dtype=dtype), m).tolist() == expected[:m]


@MAX_EXAMPLES
@given(
    st.lists(st.tuples(unit, unit, st.floats(-1e300, 1e300)), min_size=1, max_size=20),
    st.floats(0, 2),
    st.floats(0, 2),
)
def test_perturb(rows: list[tuple[float, float, float]], alpha: float, eps: float) -> None:
    x_a, x_0, g = torch.tensor(rows, dtype=torch.float64).unbind(dim=1)
    moved = reference.perturb(x_a, g, x_0, alpha=alpha, eps=eps, low=0.0, high=1.0)
    offsets = [a - o + alpha * ((s > 0) - (s < 0)) for a, o, s in rows]
    expected = [
        min(max(o + min(max(offset, -eps), eps), 0.0), 1.0)
        for offset, (_, o, _) in zip(offsets, rows, strict=True)
    ]
    close(moved, expected, 1e-15)
    assert moved.min() >= 0 and moved.max() <= 1
    assert ((moved - x_0).abs() <= eps + 1e-15).all()


def test_perturb_stays_where_the_gradient_has_no_sign_and_hands_on_nan() -> None:
    x = torch.tensor([0.2, 0.7, 0.4, math.nan])
    g = torch.tensor([0.0, -0.0, math.nan, 1.0])  # signs as torch's
    moved = reference.perturb(x, g, x, alpha=0.1, eps=0.1, low=0.0, high=1.0)
    torch.testing.assert_close(moved, x, rtol=0, atol=0, equal_nan=True)


def test_perturb_takes_a_bound_for_each_channel() -> None:
    x = torch.tensor([[0.1, 0.9], [0.1, 0.9]]).view(1, 2, 1, 2)
    g = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]).view(1, 2, 1, 2)
    alpha, eps, low, high = (
        torch.tensor(v).view(2, 1, 1) for v in ([0.5, 0.05], [0.3, 1.0], [0.0, 0.08], [1.0, 0.93])
    )
    moved = reference.perturb(x, g, x, alpha=alpha, eps=eps, low=low, high=high)
    torch.testing.assert_close(moved.flatten(), torch.tensor([0.0, 1.0, 0.08, 0.93]))

"""loss_and_entropy: values against float64, scores, labels out of range, special logits."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from entprop_fast.ops import SCORES, loss_and_entropy
from tests.ops.checks import assert_no_worse

DTYPES = (torch.float32, torch.float64, torch.bfloat16)
SHAPES = ((1, 1), (3, 2), (5, 7), (4, 16), (6, 33), (7, 100), (3, 1000))


def chain(logits: Tensor, a: Tensor, b: Tensor, lam: float, smoothing: float) -> dict[str, Tensor]:
    """Cross-entropy, entropy and scores the usual way, in the dtype of `logits`."""
    z = logits.detach().clone().requires_grad_()
    losses = [F.cross_entropy(z, y, reduction="none", label_smoothing=smoothing) for y in (a, b)]
    loss = lam * losses[0] + (1 - lam) * losses[1]
    (dlogits,) = torch.autograd.grad(loss.sum(), z)
    log_p = logits.log_softmax(1)
    p = log_p.exp()
    true = p.gather(1, a[:, None]).squeeze(1)
    wrong = p.scatter(1, a[:, None], -torch.inf).amax(1)
    return {
        "loss": loss.detach(),
        "dlogits": dlogits,
        "entropy": -(p * log_p).sum(1),
        "confidence": -p.amax(1),
        "cross_entropy": -log_p.gather(1, a[:, None]).squeeze(1),
        "margin": wrong - true,
    }


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values(
    ops: SimpleNamespace, dtype: torch.dtype, shape: tuple[int, int], scale: float, smoothing: float
) -> None:
    torch.manual_seed(sum(shape))
    logits = (scale * torch.randn(shape)).to(dtype)
    a, b = torch.randint(shape[1], (2, shape[0]))
    truth = chain(logits.double(), a, b, 0.3, smoothing)
    same = chain(logits, a, b, 0.3, smoothing)
    addend = max(1.0, (logits.double() - logits.double().logsumexp(1, True)).abs().max().item())
    for score in SCORES:
        lam = torch.tensor(0.3, dtype=torch.float64)
        loss, entropy, uncertainty, dlogits = ops.loss_and_entropy(
            logits, a, b, lam, smoothing, score
        )
        assert_no_worse(loss, same["loss"], truth["loss"], addend=addend)
        assert_no_worse(entropy, same["entropy"], truth["entropy"], addend=1.0)
        assert_no_worse(uncertainty, same[score], truth[score], addend=addend)
        assert_no_worse(dlogits, same["dlogits"], truth["dlogits"], addend=1.0)


@pytest.mark.parametrize("label", [-1, -100, 5, 2**40])
@pytest.mark.parametrize("which", [0, 1])
def test_label_out_of_range(ops: SimpleNamespace, which: int, label: int) -> None:
    labels = [torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0])]
    labels[which][1] = label
    logits = torch.randn(3, 5)
    loss, entropy, _, dlogits = ops.loss_and_entropy(
        logits, *labels, torch.tensor(0.5), 0.0, "entropy"
    )
    assert loss.isnan().tolist() == [False, True, False]
    assert dlogits.isnan().all(1).tolist() == [False, True, False]
    assert not dlogits[[0, 2]].isnan().any() and entropy.isfinite().all()


def test_impossible_classes_count_nothing(ops: SimpleNamespace) -> None:
    """A masked class (logit -inf) leaves the loss, the entropy and the gradient of the others."""
    logits, labels, lam = torch.randn(4, 9), torch.tensor([0, 3, 7, 8]), torch.ones(())
    padded = torch.cat([logits, torch.full((4, 3), -torch.inf)], dim=1)
    short = ops.loss_and_entropy(logits, labels, labels, lam, 0.0, "margin")
    long = ops.loss_and_entropy(padded, labels, labels, lam, 0.0, "margin")
    for expected, result in zip(short[:3], long[:3], strict=True):
        torch.testing.assert_close(result, expected)
    torch.testing.assert_close(long[3], F.pad(short[3], (0, 3)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite_rows_are_nan(ops: SimpleNamespace, value: float) -> None:
    logits = torch.randn(3, 20)
    logits[1, 17] = value
    labels = torch.tensor([1, 2, 3])
    for score in SCORES:
        *per_sample, dlogits = ops.loss_and_entropy(
            logits, labels, labels, torch.ones(()), 0.0, score
        )
        for result in per_sample:
            assert result.isnan().tolist() == [False, True, False]
        assert dlogits[1].isnan().any() and dlogits[[0, 2]].isfinite().all()


def test_gradient_is_the_loss_gradient(backend: str) -> None:
    logits = torch.randn(5, 8, requires_grad=True)
    a, b = torch.randint(8, (2, 5))
    result = loss_and_entropy(logits, a, b, torch.tensor(0.7), 0.1)
    weights = torch.rand(5)
    (ours,) = torch.autograd.grad((result.loss * weights).sum(), logits)
    expected = 0.7 * F.cross_entropy(logits, a, reduction="none", label_smoothing=0.1)
    expected = expected + 0.3 * F.cross_entropy(logits, b, reduction="none", label_smoothing=0.1)
    torch.testing.assert_close(ours, torch.autograd.grad((expected * weights).sum(), logits)[0])
    assert not result.entropy.requires_grad and not result.score.requires_grad


def test_gradients_by_row_and_in_a_batch(backend: str) -> None:
    """A retained graph serves several backwards, one at a time or under vmap."""
    logits, labels = torch.randn(4, 6, requires_grad=True), torch.randint(6, (4,))
    loss = loss_and_entropy(logits, labels).loss
    rows = torch.eye(4)
    (batch,) = torch.autograd.grad(loss, logits, rows, is_grads_batched=True, retain_graph=True)
    for row, expected in zip(rows, batch, strict=True):
        (grad,) = torch.autograd.grad(loss, logits, row, retain_graph=True)
        assert torch.equal(grad, expected)
    whole = loss_and_entropy(logits, labels).loss.sum()
    torch.testing.assert_close(torch.autograd.grad(whole, logits)[0], batch.sum(0))

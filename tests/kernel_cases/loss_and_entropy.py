"""Value checks of `loss_and_entropy(logits, labels, labels_b, lam, label_smoothing, score)`."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.kernel_cases.accuracy import assert_as_accurate

Outputs = tuple[Tensor, Tensor, Tensor, Tensor]
LossAndEntropy = Callable[[Tensor, Tensor, Tensor, Tensor, float, str], Outputs]
SCORES = ("entropy", "confidence", "cross_entropy", "margin")
NAMES = ("loss", "entropy", "score", "dlogits")


def plain(
    logits: Tensor, labels: Tensor, labels_b: Tensor, lam: Tensor, smoothing: float, score: str
) -> Outputs:
    """Compute the same in PyTorch's own operations, in the logits' dtype."""
    logits = logits.detach().requires_grad_()
    cross_entropy = partial(F.cross_entropy, reduction="none", label_smoothing=smoothing)
    lam = lam.to(logits.dtype)
    loss = lam * cross_entropy(logits, labels) + (1 - lam) * cross_entropy(logits, labels_b)
    loss.sum().backward()
    assert logits.grad is not None
    p = logits.detach().softmax(1)
    entropy = torch.special.entr(p).sum(1)
    true = p.gather(1, labels[:, None]).squeeze(1)
    wrong = p.scatter(1, labels[:, None], -torch.inf).amax(1)
    scores = {
        "entropy": entropy,
        "confidence": -p.amax(1),
        "cross_entropy": F.cross_entropy(logits.detach(), labels, reduction="none"),
        "margin": wrong - true,
    }
    return loss.detach(), entropy, scores[score], logits.grad


def check(
    rows: int,
    classes: int,
    score: str,
    smoothing: float,
    dtype: torch.dtype,
    scale: float,
    op: LossAndEntropy,
    device: str,
) -> None:
    """Compare with PyTorch from float32 logits, also where the rows do not follow each other."""
    generator = torch.Generator().manual_seed(classes)
    logits = (torch.randn(rows, classes, generator=generator) * scale).to(dtype)
    labels, labels_b = torch.randint(classes, (2, rows), generator=generator)
    lam = torch.rand((), generator=generator)
    truth = plain(logits.double(), labels, labels_b, lam, smoothing, score)
    theirs = plain(logits.float(), labels, labels_b, lam, smoothing, score)
    apart = torch.cat([logits, logits], dim=1).to(device)[:, :classes]
    for given in (logits.to(device), apart):
        on_device = (labels.to(device), labels_b.to(device), lam.to(device))
        ours = op(given, *on_device, smoothing, score)
        assert [t.dtype for t in ours] == [torch.float32] * 3 + [dtype]
        for name, result, torch_result, expected in zip(NAMES, ours, theirs, truth, strict=True):
            assert_as_accurate(name, result, torch_result, expected)


def check_bad_labels(op: LossAndEntropy, device: str) -> None:
    """Check that a label outside the classes makes its own row NaN and nothing else."""
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(device)
    good = torch.tensor([0, 1, 2, 3, 4, 0], device=device)
    bad = torch.tensor([0, -100, 2, 5, 4, 2**40], device=device)
    rows = torch.tensor([False, True, False, True, False, True])
    lam = torch.tensor(0.5, device=device)
    clean = op(logits, good, good, lam, 0.1, "entropy")
    for labels, labels_b in ((bad, good), (good, bad)):
        outputs = op(logits, labels, labels_b, lam, 0.1, "entropy")
        loss, entropy, score, dlogits = (t.cpu() for t in outputs)
        assert torch.equal(loss.isnan(), rows)
        assert torch.equal(dlogits.isnan(), rows[:, None].expand(6, 5))
        assert torch.equal(loss[~rows], clean[0].cpu()[~rows])
        assert torch.equal(entropy, clean[1].cpu()) and torch.equal(score, clean[1].cpu())
    for kind in ("cross_entropy", "margin"):
        assert torch.equal(op(logits, bad, good, lam, 0.0, kind)[2].cpu().isnan(), rows)


def check_special_logits(op: LossAndEntropy, device: str) -> None:
    """NaN and +inf make a row NaN as softmax does; a class at -inf has probability 0."""
    logits = torch.zeros(4, 3)
    logits[0, 1], logits[1, 2], logits[2, 1] = torch.nan, torch.inf, -torch.inf
    labels = torch.tensor([0, 0, 0, 0], device=device)
    partners = torch.tensor([0, 0, 1, 1], device=device)  # -inf too, but of weight 0
    lam = torch.tensor(1.0, device=device)
    loss, entropy, score, dlogits = (
        t.cpu() for t in op(logits.to(device), labels, partners, lam, 0.0, "margin")
    )
    bad = torch.tensor([True, True, False, False])
    for out in (loss, entropy, score, dlogits[:, 0]):
        assert torch.equal(out.isnan(), bad)
    log2, log3 = torch.tensor(2.0).log(), torch.tensor(3.0).log()
    torch.testing.assert_close(loss[2:], torch.stack([log2, log3]))
    torch.testing.assert_close(entropy[2:], torch.stack([log2, log3]))
    torch.testing.assert_close(dlogits[2], torch.tensor([-0.5, 0.0, 0.5]))
    assert score[2] == 0


SETTINGS = (  # score, rows, classes, smoothing, scale of the logits
    ("entropy", 5, 10, 0.1, 1.0),
    ("confidence", 3, 1000, 0.0, 4.0),
    ("cross_entropy", 4, 33, 0.2, 30.0),
    ("margin", 6, 100, 0.0, 8.0),
)
CASES: dict[str, Callable[[LossAndEntropy, str], None]] = {
    f"{score}-{rows}x{classes}-{dtype}".replace("torch.", ""): partial(
        check, rows, classes, score, smoothing, dtype, scale
    )
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
    for score, rows, classes, smoothing, scale in SETTINGS
}
CASES |= {
    f"{score}-{classes}-classes": partial(check, 3, classes, score, 0.1, torch.float32, 1.0)
    for score in SCORES
    for classes in (1, 2)
}
CASES |= {
    "bad-labels": check_bad_labels,
    "special-logits": check_special_logits,
}

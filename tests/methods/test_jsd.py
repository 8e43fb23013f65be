"""Three views of a row: the Jensen-Shannon consistency of AugMix, alone and under EntProp."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from entprop_fast import Method, reference
from tests.methods import support as s
from tests.methods.by_hand import ByHand, Draws, Settings
from tests.methods.test_exactness import Focal, compare, focal

JSD = 12.0


def by_definition(logits: "np.ndarray[Any, Any]") -> float:
    """The sum over rows of the mean over views of KL(p_view || M), in NumPy's float64."""
    z = logits.reshape(3, -1, logits.shape[1])
    p = np.exp(z - z.max(2, keepdims=True))
    p /= p.sum(2, keepdims=True)
    total = 0.0
    for row in range(p.shape[1]):
        middle = np.clip(sum(p[view, row] for view in range(3)) / 3, 1e-7, 1)
        for view in range(3):
            total += sum(q * math.log(q / m) for q, m in zip(p[view, row], middle, strict=True)) / 3
    return total


@pytest.mark.parametrize(("scale", "low"), [(0.1, 0), (1.0, 0), (12.0, 0), (1.0, -18)])
def test_the_divergence_and_its_gradient_are_those_of_the_definition(
    scale: float, low: float
) -> None:
    z = scale * torch.randn(12, 5, generator=s.generator(1), dtype=torch.float64)
    z[:, 0] += low  # at -18 M is clamped
    leaf = z.clone().requires_grad_()
    of_rows = reference.jensen_shannon(leaf)
    assert of_rows.shape == (4,)
    of_rows.sum().backward()
    assert leaf.grad is not None
    s.close(of_rows.detach().sum(), torch.tensor(by_definition(z.numpy())).double())
    step, found = 1e-6, np.zeros(z.shape)
    for at in np.ndindex(*z.shape):
        ends = []
        for sign in (1, -1):
            moved = z.numpy().copy()
            moved[at] += sign * step
            ends.append(by_definition(moved))
        found[at] = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(leaf.grad, torch.from_numpy(found), rtol=1e-6, atol=1e-9)


def test_the_divergence_is_what_augmix_computes() -> None:
    z = torch.randn(24, 7, generator=s.generator(2)) * 3
    p = [part.softmax(1) for part in z.chunk(3)]
    log_m = ((p[0] + p[1] + p[2]) / 3).clamp(1e-7, 1).log()
    expected = sum(F.kl_div(log_m, one, reduction="batchmean") for one in p) / 3
    torch.testing.assert_close(reference.jensen_shannon(z).mean(), expected)
    same = torch.full((3, 4), 2.5)
    assert reference.jensen_shannon(same).abs().max() < 1e-6
    # Probabilities that underflow cost nothing and have no NaN gradient.
    far = torch.tensor([[0.0, 1e4], [1e4, 0.0], [0.0, 0.0]], requires_grad=True)
    reference.jensen_shannon(far).sum().backward()
    assert far.grad is not None and far.grad.isfinite().all()
    assert reference.jensen_shannon(z[:0]).shape == (0,)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("vanilla", {}),
    ("vanilla", {"label_smoothing": 0.1, "max_grad_norm": 0.05}),
    ("entprop", {}),
    ("entprop", {"k": 0.6, "n": 3, "accumulate": "all", "equalize": True, "label_smoothing": 0.1}),
    ("entprop", {"k": 0.6, "n": 2, "score": "margin", "aux_stats": "every", "alpha": 0.02}),
    ("entprop", {"k": 0.6, "n": 2, "attack_loss": "trades", "alpha": 0.02}),
    ("entprop", {"k": 0.6, "score": "random", "selection": "global"}),
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_by_hand(name: str, options: dict[str, Any]) -> None:
    check(name, options, ByHand(s.dual_network().state_dict()))


@pytest.mark.parametrize("name", ["vanilla", "entprop"])
def test_a_criterion_takes_the_place_of_the_cross_entropy(name: str) -> None:
    check(name, {}, ByHand(s.dual_network().state_dict(), loss=focal), criterion=Focal())


def check(name: str, options: dict[str, Any], hand: ByHand, **extra: Any) -> None:
    method = s.make(name, generator=s.generator(7), jsd=JSD, **options, **extra)
    kept = {key: value for key, value in options.items() if key != "selection"}
    settings = Settings(**({"k": None} if name == "vanilla" else {}) | kept, jsd=JSD)
    source = s.generator(7)
    for i in range(3):
        images, labels = s.batch_for(method, seed=i)
        before = images.clone()
        result = method(images, labels)
        draws = None
        if settings.score == "random":
            score = torch.rand(len(labels), generator=source, dtype=torch.float64).tolist()
            draws = Draws(1.0, list(range(len(labels))), score)
        compare(method, hand, result, hand.step(images, labels, settings, draws))
        s.assert_equal(images, before)


def test_views_cost_and_rows() -> None:
    plain: Any = s.make()
    assert plain.views == 1 and plain.mixup == 1.0
    with pytest.raises(ValueError, match=r"(?=.*\bmixup=1\b).*\bcutmix=1\b"):
        plain.cutmix = 1.0
    method: Any = s.make(jsd=JSD, k=0.2)
    assert method.views == 3 and method.mixup == 0 and s.make(jsd=JSD, mixup=0).views == 3
    assert method.cost(12) == 3 + 2 / 12 and s.make("vanilla", jsd=JSD).cost(12) == 3
    result = method(*s.batch_for(method))
    assert method.rows == 36 + 2 and method.last_batch == (12, 12) and 0 <= result.correct <= 12
    assert method.selected_index.max() < 12 and method.perturbed.shape == (2, 3, 6, 6)
    method.jsd = 0
    assert method.views == 1 and method.mixup == 1.0


def refused(method: Method, images: Tensor, labels: Tensor, words: str) -> None:
    s.refuse(method, images, labels, words)


def test_batches_that_do_not_fit() -> None:
    method = s.make(jsd=JSD)
    images, labels = s.batch_for(method)
    refused(method, images[:35], labels, r"^images.*\[3 \* B")
    refused(method, images, labels[:11], r"^labels.*\(12,\).*3 views")
    refused(method, images[:12], labels, r"^labels.*\(4,\).*3 views")
    refused(method, images[:12].repeat(3, 1, 1, 1) + 2, labels, r"^images hold values")
    refused(method, images, labels + s.CLASSES, r"^labels hold")
    # One row has three views, which a norm can take; its one perturbed row is one too few.
    few = s.batch_for(method, 1, size=3)  # 1x1 behind the second convolution
    refused(method, *few, r"m=1.*larger batch")
    s.make("vanilla", jsd=JSD)(*few)
    refused(s.make("vanilla"), *s.batch(1, size=3), r"B=1")


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_accumulated_weighted_and_copied(name: str, options: dict[str, Any]) -> None:
    whole, part = s.pair(name, jsd=JSD, **options)
    images, labels = s.batch_for(whole)
    results = [list(m.backward(images, labels, weight=w)) for m, w in ((whole, 1.0), (part, 0.25))]
    s.assert_equal(*results)
    s.close(
        s.gradients(part.model),
        {key: g if g is None else g / 4 for key, g in s.gradients(whole.model).items()},
    )
    _, _, twin = copy.deepcopy((whole.model, whole.optimizer, whole))
    s.assert_equal(list(twin(images, labels)), list(whole(images, labels)))
    s.assert_equal(s.left(twin), s.left(whole))


def test_the_images_gradient_is_the_first_views_own() -> None:
    """It holds what the divergence gives the first view, and what a batch norm shares."""
    method: Any = s.make(jsd=JSD, k=1.0, alpha=0.01)
    images, labels = s.batch_for(method)
    model = copy.deepcopy(method.model)
    leaf = images.clone().requires_grad_()
    z = model(leaf)
    loss = F.cross_entropy(z[:12], labels) + JSD * reference.jensen_shannon(z).mean()
    (g,) = torch.autograd.grad(loss, leaf)
    method(images, labels)
    moved = (images[:12] + 0.01 * g[:12].sign()).clamp(0, 1)[method.selected_index]
    s.close(method.perturbed, moved)

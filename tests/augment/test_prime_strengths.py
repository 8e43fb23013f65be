"""Prime: what it draws, against the published distributions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, TypeAlias, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from entprop_fast.augment import Prime
from entprop_fast.augment.prime import Strengths
from entprop_fast.ops.prime_chains import Primitive
from entprop_fast.ops.prime_primitives import mode_variances, random_displacements
from tests.augment.prime_description import Array

PIXELS = 32


Scale: TypeAlias = Literal["cifar", "imagenet"]


@pytest.fixture(scope="module", params=["cifar", "imagenet"])
def scale(request: pytest.FixtureRequest) -> Scale:
    return cast(Scale, request.param)


@pytest.fixture(scope="module")
def drawn(scale: Scale) -> Strengths:
    return Prime(scale=scale).draw(torch.arange(4000), (PIXELS, PIXELS))


def of(drawn: Strengths, kind: Primitive) -> tuple[Tensor, Tensor, Tensor]:
    """Return first and last frequency and scale of the primitives of one kind, in float64."""
    at = drawn.codes == kind
    return drawn.bands[at][:, 0].double(), drawn.bands[at][:, 1].double(), drawn.scale[at].double()


def follows(values: Tensor, law: Callable[[Array], Array]) -> None:
    """Check by Kolmogorov and Smirnov, one in a thousand right laws fails; law: P(X <= x)."""
    points, counts = np.unique(values.double().numpy(), return_counts=True)
    after = counts.cumsum() / counts.sum()
    before = after - counts / counts.sum()
    distance = np.maximum(np.abs(after - law(points)), np.abs(before - law(points - 1e-9)))
    assert distance.max() < 1.95 / counts.sum() ** 0.5


def arcsine(x: Array) -> Array:
    """Return P(X <= x) of Beta(1/2, 1/2)."""
    share: Array = 2 / math.pi * np.arcsin(np.sqrt(np.clip(x, 0, 1)))
    return share


def uniform(x: Array) -> Array:
    return np.clip(x, 0, 1)


def test_chains_are_one_to_three_deep(drawn: Strengths) -> None:
    used = drawn.codes.ne(0).double()
    shares = used.mean((0, 1))
    assert shares[0] == 1 and torch.equal(used, used.cummin(2).values)
    assert (shares - torch.tensor([1, 2 / 3, 1 / 3])).abs().max() < 0.02
    for kind in (Primitive.WARP, Primitive.COLOR, Primitive.FILTER):
        share = (drawn.codes == kind).double().mean((0, 1)) / shares
        assert (share - 1 / 3).abs().max() < 0.03
    assert drawn.codes.unique().tolist() == [0, 1, 2, 3]


def test_mixing_weights(drawn: Strengths) -> None:
    mixed = 1 - drawn.keep.double()
    follows(mixed, uniform)
    weights = drawn.weights.double() / mixed[:, None]
    assert torch.allclose(weights.sum(1), torch.ones(4000).double(), atol=1e-5)
    for chain in range(3):  # Dirichlet(1, 1, 1): Beta(1, 2) each
        follows(weights[:, chain], lambda x: 1 - (1 - np.clip(x, 0, 1)) ** 2)


def test_cuts_and_temperatures_of_warps(drawn: Strengths, scale: Scale) -> None:
    _, cut, root = of(drawn, Primitive.WARP)
    highest = np.arange(3, (100 if scale == "cifar" else 500) + 1)[:, None]

    def law(c: Array) -> Array:
        shares: Array = arcsine((np.floor(c) - 1) / (highest - 1)).mean(0)
        return shares

    follows(cut, law)
    low = 1 / (math.pi * PIXELS**2 * cut.log())
    high = 4 / (math.pi**3 * cut.square() * cut.log())
    place = (root.square() - low) / (high - low)
    follows(place[high > 1.2 * low], arcsine)
    assert torch.allclose(root.square()[high < low], low[high < low], rtol=1e-5)


def test_frequencies_and_variances_of_curves(drawn: Strengths, scale: Scale) -> None:
    first, last, root = of(drawn, Primitive.COLOR)
    cut = np.arange(1, 501)[:, None]
    if scale == "cifar":
        assert (first == 1).all()
        follows(last, lambda x: np.clip(np.floor(x), 0, 100) / 100)
    else:
        follows(first, lambda x: np.clip(np.floor(x) / cut, 0, 1).mean(0))
        assert (last - first).min() >= 0 and (last - first).max() == 19
        # The last is first + 19, or the cut where that is lower.
        follows(
            last, lambda x: np.where(cut <= x, 1, np.clip(np.floor(x - 19) / cut, 0, 1)).mean(0)
        )
    follows(root.square() / (0.01 if scale == "cifar" else 0.05), uniform)


def test_sigmas_of_filters(drawn: Strengths) -> None:
    follows(of(drawn, Primitive.FILTER)[2] / 4, uniform)


@pytest.mark.parametrize("cut", [2, 3, 5, 11, 40, 100])
def test_warps_move_by_half_a_pixel_up_to_where_they_fold(cut: int) -> None:
    """Diffeo's docstring: the lowest temperature moves the middle by half a pixel.

    The highest moves it by n / (pi cut), `typical_displacement` of utils/diffeomorphism.py.
    """
    count, scale = 300, 1 / (math.pi**3 * cut**2 * math.log(cut) / 4) ** 0.5
    keys, cuts = torch.arange(count), torch.full((count,), cut, dtype=torch.int32)
    dx, dy = random_displacements(keys, cuts, torch.full((count,), scale), (PIXELS, PIXELS), 100)
    middle = slice(PIXELS // 4, -PIXELS // 4)
    moved = dx[:, middle, middle].square().mean().sqrt().item()
    assert moved == pytest.approx(PIXELS / (math.pi * cut), rel=0.5)
    assert dy[:, middle, middle].square().mean().sqrt().item() == pytest.approx(moved, rel=0.2)
    assert dx.abs().max() < 6 * PIXELS / (math.pi * cut)
    for edge in (dx[:, 0], dx[:, -1], dy[..., 0], dy[..., -1]):
        assert edge.abs().max() < 1e-5
    if cut < PIXELS / 4:  # columns stay in order, nearly everywhere
        assert ((1 - dx.diff(dim=2)) < 0).double().mean() < 0.03


def test_what_is_drawn_moves_the_middle_by_a_few_pixels_at_most(drawn: Strengths) -> None:
    _, cut, root = of(drawn, Primitive.WARP)
    typical = PIXELS * root * (math.pi * cut.log()).sqrt() / 2
    assert typical.min() > 0.499
    assert (typical <= (PIXELS / (math.pi * cut)).clamp(min=0.5) * 1.001).all()


@pytest.mark.parametrize(("size", "cut"), [((6, 9), 17), ((12, 5), 4), ((3, 3), 30)])
def test_modes_that_look_alike_have_the_sum_of_their_variances(
    size: tuple[int, int], cut: int
) -> None:
    """The covariance of the field at any two pixels is that of all cut^2 modes."""

    def waves(pixels: int, modes: int) -> Tensor:
        x = torch.linspace(0, 1, pixels, dtype=torch.float64)
        return (math.pi * x[:, None] * torch.arange(1, modes + 1)).sin()

    k = torch.arange(1, cut + 1, dtype=torch.float64)
    squared = k[:, None].square() + k.square()
    every = (squared.sqrt() < cut + 0.5) / squared
    ours = mode_variances(torch.tensor([cut], dtype=torch.int32), size, 40)[0].double()
    found = [
        torch.einsum(
            "ij,yi,zi,xj,wj->yxzw",
            v,
            *[waves(size[0], len(v))] * 2,
            *[waves(size[1], v.shape[1])] * 2,
        )
        for v in (every, ours)
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)

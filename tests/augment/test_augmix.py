"""AugMix: every draw's law, and whole images against the paper's description with Pillow."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from torch import Tensor

from entprop_fast.augment import AugMix, parse_chain
from entprop_fast.augment.drawn_chains import ChainDraws
from entprop_fast.counter_random import keys_of
from entprop_fast.draws import log_gammas
from entprop_fast.ops import ImageOp

KEYS = keys_of(20, torch.arange(20_000))
UNLIKELY = 1e-4  # keys are fixed: what passes once passes always
HEIGHT, WIDTH = 30, 48
SHEARS = (ImageOp.SHEAR_X, ImageOp.SHEAR_Y)
FACTORS = (ImageOp.BRIGHTNESS, ImageOp.COLOR, ImageOp.CONTRAST, ImageOp.SHARPNESS)
# Largest value of `int_parameter` at level 10.
WHOLE = {
    ImageOp.POSTERIZE: 4,
    ImageOp.SOLARIZE: 256,
    ImageOp.ROTATE: 30,
    ImageOp.TRANSLATE_X: WIDTH / 3,
    ImageOp.TRANSLATE_Y: HEIGHT / 3,
}


def drawn(augment: AugMix) -> ChainDraws:
    return augment.draw(KEYS, (HEIGHT, WIDTH))


def even(values: Sequence[int] | Tensor, expected: Sequence[int]) -> float:
    """Return the p-value of integers that should be even over the expected ones."""
    found = np.asarray(values)
    assert set(found.tolist()) == set(expected)
    return float(stats.chisquare([(found == value).sum() for value in expected]).pvalue)


def strengths_of(draws: ChainDraws, op: ImageOp) -> np.ndarray:
    return draws.strengths[draws.codes == op].double().numpy()


@pytest.mark.parametrize("all_ops", [False, True])
def test_operations_and_depths(all_ops: bool) -> None:
    codes = drawn(AugMix(all_ops=all_ops)).codes
    depths = (codes > 0).sum(2)
    assert ((codes > 0) == (torch.arange(3) < depths[:, :, None])).all(), "a gap in a chain"
    last = 13 if all_ops else 9
    for chain in range(3):
        assert even(depths[:, chain], (1, 2, 3)) > UNLIKELY
        for place in range(3):
            there = codes[:, chain, place]
            assert even(there[there > 0], range(1, last + 1)) > UNLIKELY
    pairs = np.histogram2d(codes[:, 0, 0], codes[:, 1, 0], bins=last)[0]
    assert stats.chi2_contingency(pairs).pvalue > UNLIKELY
    pairs = np.histogram2d(depths[:, 0], depths[:, 2], bins=3)[0]
    assert stats.chi2_contingency(pairs).pvalue > UNLIKELY


@pytest.mark.parametrize("severity", [1, 3, 10])
def test_strengths(severity: int) -> None:
    """The level is even over (0.1, severity); most operations cut it to a whole number."""
    draws = drawn(AugMix(severity=severity, all_ops=True))
    for op in SHEARS:
        found = strengths_of(draws, op)
        law = stats.uniform(0.003, severity * 0.03 - 0.003)
        assert stats.kstest(np.abs(found), law.cdf).pvalue > UNLIKELY
        assert even(np.sign(found).astype(int), (-1, 1)) > UNLIKELY
    for op in FACTORS:
        law = stats.uniform(0.1 + 0.018, severity * 0.18 - 0.018)
        assert stats.kstest(strengths_of(draws, op), law.cdf).pvalue > UNLIKELY
    for op, most in WHOLE.items():
        found = strengths_of(draws, op)
        whole = np.abs({ImageOp.POSTERIZE: 4 - found, ImageOp.SOLARIZE: 256 - found}.get(op, found))
        assert (whole == np.round(whole)).all()
        edges = np.arange(int(severity * most / 10) + 2) * 10 / most
        chances = np.diff(stats.uniform(0.1, severity - 0.1).cdf(edges))
        counts = np.bincount(whole.astype(int), minlength=len(chances))
        possible = chances > 1e-9
        assert counts[~possible].sum() == 0 and len(counts) == len(chances)
        test = stats.chisquare(counts[possible], chances[possible] * len(whole))
        assert possible.sum() == 1 or test.pvalue > UNLIKELY, op
        if op not in (ImageOp.POSTERIZE, ImageOp.SOLARIZE):
            moved = found[found != 0]
            assert len(moved) == 0 or even(np.sign(moved).astype(int), (-1, 1)) > UNLIKELY


@pytest.mark.parametrize("alpha", [1.0, 0.3, 4.0])
def test_weights(alpha: float) -> None:
    draws = drawn(AugMix(alpha=alpha, width=4))
    torch.testing.assert_close(draws.keep + draws.weights.sum(1), torch.ones(len(KEYS)))
    mixed = 1 - draws.keep.double()
    assert stats.kstest(mixed, stats.beta(alpha, alpha).cdf).pvalue > UNLIKELY
    clear = mixed > 1e-4  # beneath it, 1 - m in float32 says little of w
    shares = draws.weights[clear].double() / mixed[clear, None]
    for chain in range(4):
        law = stats.beta(alpha, 3 * alpha)
        assert stats.kstest(shares[:, chain].clamp(0, 1), law.cdf).pvalue > UNLIKELY
        assert stats.spearmanr(shares[:, chain], mixed[clear]).pvalue > UNLIKELY


@pytest.mark.parametrize("concentration", [0.1, 2.0])
def test_gamma_numbers(concentration: float) -> None:
    """Each by one of 16 candidates; their law is that of Gamma, also where they underflow."""
    normal, chance = torch.randn(40_000, 16), 1 - torch.rand(40_000, 17)
    found = log_gammas(concentration, normal, chance).double()
    assert stats.kstest(found, stats.loggamma(concentration).cdf).pvalue > UNLIKELY


def test_a_fixed_depth_and_width() -> None:
    draws = drawn(AugMix(depth=5, width=2))
    assert draws.codes.shape == draws.strengths.shape == (len(KEYS), 2, 5)
    assert (draws.codes > 0).all()


def described(image: Image.Image, draw: np.random.Generator, severity: float) -> np.ndarray:
    """Augment one picture as the paper and augmentations.py describe it, in float64."""

    def level(most: float) -> float:
        return draw.uniform(0.1, severity) * most / 10

    def sign() -> int:
        return 1 if draw.uniform() <= 0.5 else -1

    def affine(picture: Image.Image, *matrix: float) -> Image.Image:
        return picture.transform(
            picture.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR
        )

    def changed(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        match draw.integers(13):
            case 0:
                return ImageOps.autocontrast(picture)
            case 1:
                return ImageOps.equalize(picture)
            case 2:
                return ImageOps.posterize(picture, 4 - int(level(4)))
            case 3:
                angle = sign() * int(level(30))
                return picture.rotate(angle, resample=Image.Resampling.BILINEAR)
            case 4:
                return ImageOps.solarize(picture, 256 - int(level(256)))
            case 5:
                return affine(picture, 1, sign() * level(0.3), 0, 0, 1, 0)
            case 6:
                return affine(picture, 1, 0, 0, sign() * level(0.3), 1, 0)
            case 7:
                return affine(picture, 1, 0, sign() * int(level(width / 3)), 0, 1, 0)
            case 8:
                return affine(picture, 1, 0, 0, 0, 1, sign() * int(level(height / 3)))
            case 9:
                return ImageEnhance.Color(picture).enhance(level(1.8) + 0.1)
            case 10:
                return ImageEnhance.Contrast(picture).enhance(level(1.8) + 0.1)
            case 11:
                return ImageEnhance.Brightness(picture).enhance(level(1.8) + 0.1)
        return ImageEnhance.Sharpness(picture).enhance(level(1.8) + 0.1)

    weights, m = draw.dirichlet([1] * 3), draw.beta(1, 1)
    mixture = np.zeros_like(np.asarray(image), dtype=np.float64)
    for weight in weights:
        picture = image
        for _ in range(draw.integers(1, 4)):
            picture = changed(picture)
        mixture += weight * np.asarray(picture)
    return (1 - m) * np.asarray(image) + m * mixture


def features(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers of each image that tell the operations and their mixture apart."""
    change = after - before
    axes = (1, 2, 3)
    return {
        "mean": change.mean(axes),
        "size": np.abs(change).mean(axes),
        "largest": np.abs(change).max(axes),
        "spread": after.std(axes) - before.std(axes),
        "colour": after.std(3).mean((1, 2)) - before.std(3).mean((1, 2)),
        "edge": change[:, :, 0].mean((1, 2)),
        "top": change[:, 0].mean((1, 2)),
        "sharpness": np.abs(np.diff(after, axis=2)).mean(axes),
    }


@pytest.mark.parametrize("severity", [3, 8])
def test_images_have_the_law_of_the_description(severity: int) -> None:
    """Two samples of 500 for the same pictures, by Kolmogorov and Smirnov."""
    draw = np.random.default_rng(severity)
    coarse = draw.uniform(0, 255, (500, 4, 3, 3)).repeat(4, 1).repeat(5, 2)
    before = (coarse * 0.6 + draw.uniform(20, 100, coarse.shape)).clip(0, 255).astype(np.uint8)
    after = np.stack([described(Image.fromarray(one), draw, severity) for one in before])
    images = torch.from_numpy(before).permute(0, 3, 1, 2)
    augment = AugMix(severity=severity, all_ops=True, seed=1)
    ours = augment(images, torch.arange(len(images))).permute(0, 2, 3, 1).double().numpy()
    theirs = features(before.astype(float), after)
    for name, values in features(before.astype(float), ours).items():
        assert stats.ks_2samp(values, theirs[name]).pvalue > UNLIKELY, name


def test_published_settings() -> None:
    """Those of cifar.py; imagenet.py differs in its severity."""
    assert parse_chain("augmix").parts == (
        AugMix(severity=3, width=3, depth=-1, alpha=1.0, all_ops=False),
    )
    assert parse_chain("augmix:severity=1,all-ops=true").parts == (
        AugMix(severity=1, all_ops=True),
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [("severity", 0), ("severity", 11), ("width", 0), ("depth", 0), ("depth", -2), ("alpha", 0.0)],
)
def test_an_option_beyond_is_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^(unknown )?{option}"):
        AugMix(**{option: value})  # type: ignore[arg-type]

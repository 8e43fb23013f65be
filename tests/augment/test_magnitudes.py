"""TrivialAugment and RandAugment against torchvision v2, operation by operation."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2

from entprop_fast.augment import RandAugment, TrivialAugment, parse_chain
from entprop_fast.augment.drawn_chains import ChainDraws
from entprop_fast.augment.magnitudes import Space, codes_of, strengths_of
from entprop_fast.augment.randaugment import SPACE
from entprop_fast.augment.trivialaugment import WIDE
from entprop_fast.counter_random import keys_of
from entprop_fast.ops import NEAREST, ImageOp, image_chains

KEYS = keys_of(21, torch.arange(20_000))
UNLIKELY = 1e-4
SIZE = (37, 43)
NAMES = {  # torchvision's, by code
    ImageOp.IDENTITY: "Identity",
    ImageOp.AUTOCONTRAST: "AutoContrast",
    ImageOp.EQUALIZE: "Equalize",
    ImageOp.POSTERIZE: "Posterize",
    ImageOp.SOLARIZE: "Solarize",
    ImageOp.ROTATE: "Rotate",
    ImageOp.SHEAR_X: "ShearX",
    ImageOp.SHEAR_Y: "ShearY",
    ImageOp.TRANSLATE_X: "TranslateX",
    ImageOp.TRANSLATE_Y: "TranslateY",
    ImageOp.BRIGHTNESS: "Brightness",
    ImageOp.COLOR: "Color",
    ImageOp.CONTRAST: "Contrast",
    ImageOp.SHARPNESS: "Sharpness",
}
PEERS: dict[str, tuple[Any, Space]] = {
    "trivialaugment": (v2.TrivialAugmentWide, WIDE),
    "randaugment": (v2.RandAugment, SPACE),
}


def ours(images: Tensor, op: ImageOp, places: Tensor, negative: Tensor, **settings: Any) -> Tensor:
    """Apply one operation, to each image with the magnitude at its place."""
    nearest = settings.pop("nearest")
    kinds = torch.full((len(images),), int(op))
    strengths = strengths_of(kinds, places, negative, size=SIZE, **settings)
    codes = codes_of(kinds, nearest=nearest)
    one = torch.ones(len(images), 1)
    return image_chains(images, codes[:, None, None], strengths[:, None, None], one, 0 * one[:, 0])


def theirs(peer: Any, image: Tensor, op: ImageOp, place: int, negative: bool, bins: int) -> Tensor:
    """Apply torchvision's operation to a PIL image, with the magnitude of its own table."""
    magnitudes, signed = peer._AUGMENTATION_SPACE[NAMES[op]]
    table = magnitudes(bins, *SIZE)
    magnitude = 0.0 if table is None else float(table[place])
    if op in (ImageOp.SOLARIZE, ImageOp.TRANSLATE_X, ImageOp.TRANSLATE_Y):
        # Whole thresholds and pixels, which the table's float32 may miss.
        first, last = float(table[0]), float(table[-1])
        exact = (first * (bins - 1 - place) + last * place) / (bins - 1)
        assert abs(exact - magnitude) < 1e-5
        magnitude = exact
    sign = -1 if signed and negative else 1
    array = image.permute(1, 2, 0).squeeze(2).numpy()
    changed = peer._apply_image_or_video_transform(
        Image.fromarray(array), NAMES[op], sign * magnitude, peer.interpolation, peer._fill
    )
    tensor: Tensor = v2.functional.pil_to_tensor(changed)
    return tensor


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("op", NAMES, ids=str)
def test_an_operation_is_torchvisions(op: ImageOp, name: str) -> None:
    """For each magnitude and sign; equal, but for ties of sampling and a level of bilinear's."""
    cls, space = PEERS[name]
    for channels, bins in ((3, 31), (1, 11)):
        places = torch.arange(bins).repeat(2)
        negative = torch.arange(2 * bins) >= bins
        smooth = torch.rand(2 * bins, channels, *SIZE).cumsum(2).cumsum(3)
        images = (smooth % 2 * 127).to(torch.uint8)
        for nearest in (True, False):
            sampling = v2.InterpolationMode.NEAREST if nearest else v2.InterpolationMode.BILINEAR
            peer = cls(interpolation=sampling)
            found = ours(images, op, places, negative, space=space, bins=bins, nearest=nearest)
            expected = torch.stack(
                [
                    theirs(peer, image, op, int(place), bool(minus), bins)
                    for image, place, minus in zip(images, places, negative, strict=True)
                ]
            )
            apart = (found.int() - expected.int()).abs()
            if op in (ImageOp.ROTATE, ImageOp.SHEAR_X, ImageOp.SHEAR_Y):
                assert (apart > (0 if nearest else 1)).float().mean() < 5e-4  # ties
                assert (apart > 0).float().mean() < 0.03
            elif op >= ImageOp.BRIGHTNESS:  # a factor's last bit decides where a level is whole
                assert apart.max() <= 1 and (apart > 0).float().mean() < 0.01
            else:
                assert apart.max() == 0


def flat(draws: ChainDraws) -> tuple[np.ndarray, np.ndarray]:
    """Return codes without the sampling, and strengths, as one row."""
    return (draws.codes.flatten() % NEAREST).numpy(), draws.strengths.flatten().double().numpy()


@pytest.mark.parametrize("augment", [TrivialAugment(), RandAugment(num_ops=3)], ids=str)
def test_operations_are_drawn_evenly(augment: TrivialAugment | RandAugment) -> None:
    draws = augment.draw(KEYS, SIZE)
    assert (draws.weights == 1).all() and (draws.keep == 0).all()
    for place in range(draws.codes.shape[2]):
        counts = np.bincount(draws.codes[:, 0, place] % NEAREST, minlength=14)
        assert len(counts) == 14 and stats.chisquare(counts).pvalue > UNLIKELY
    if draws.codes.shape[2] > 1:
        first, second = (draws.codes[:, 0, :2] % NEAREST).long().unbind(1)
        pairs = torch.bincount(14 * first + second, minlength=14 * 14).view(14, 14)
        assert stats.chi2_contingency(pairs).pvalue > UNLIKELY


def expected_strengths(op: ImageOp, bins: int) -> list[float]:
    """Return both signs of every strength of the wide space, by the definition."""
    part = np.arange(bins) / (bins - 1)
    whole = {
        ImageOp.SHEAR_X: 0.99 * part,
        ImageOp.SHEAR_Y: 0.99 * part,
        ImageOp.TRANSLATE_X: np.floor(32 * part + 1e-9),
        ImageOp.TRANSLATE_Y: np.floor(32 * part + 1e-9),
        ImageOp.ROTATE: 135 * part,
    }
    if op in whole:
        return [*whole[op], *-whole[op]]
    if op >= ImageOp.BRIGHTNESS:
        return [*1 + 0.99 * part, *1 - 0.99 * part]
    if op == ImageOp.POSTERIZE:
        return list(8 - np.round(6 * part))
    return list(255 - 255 * part)


def test_strengths_of_trivialaugment_are_even() -> None:
    bins = 7
    codes, strengths = flat(TrivialAugment(num_magnitude_bins=bins).draw(KEYS, SIZE))
    for op in range(ImageOp.POSTERIZE, ImageOp.INVERT):
        expected = np.round(expected_strengths(ImageOp(op), bins), 4) + 0.0
        values, times = np.unique(expected, return_counts=True)
        found, counts = np.unique(np.round(strengths[codes == op], 4) + 0.0, return_counts=True)
        np.testing.assert_allclose(found, values, atol=2e-4)
        chances = times / times.sum() * counts.sum()
        assert stats.chisquare(counts, chances).pvalue > UNLIKELY, op


def test_strength_of_randaugment() -> None:
    codes, strengths = flat(RandAugment(magnitude=12).draw(KEYS, (20, 331)))
    expected = {
        ImageOp.SHEAR_X: 0.12,
        ImageOp.ROTATE: 12,
        ImageOp.TRANSLATE_X: 60,
        ImageOp.TRANSLATE_Y: 3,
    }
    for op, value in expected.items():
        found, counts = np.unique(strengths[codes == op], return_counts=True)
        np.testing.assert_allclose(found, [-value, value], rtol=1e-6)
        assert stats.chisquare(counts).pvalue > UNLIKELY
    found = np.unique(strengths[codes == ImageOp.COLOR])
    np.testing.assert_allclose(found, [0.64, 1.36], rtol=1e-6)
    assert set(strengths[codes == ImageOp.POSTERIZE]) == {6}
    assert set(strengths[codes == ImageOp.SOLARIZE]) == {153}


def test_sampling_is_an_option() -> None:
    for cls in (TrivialAugment, RandAugment):
        codes = cls().draw(KEYS, SIZE).codes
        smooth = cls(interpolation="bilinear").draw(KEYS, SIZE).codes
        assert torch.equal(codes % NEAREST, smooth) and (smooth < NEAREST).all()
        geometric = (smooth >= ImageOp.ROTATE) & (smooth <= ImageOp.TRANSLATE_Y)
        assert torch.equal(codes >= NEAREST, geometric)


def test_published_settings() -> None:
    assert parse_chain("trivialaugment+randaugment").parts == (
        TrivialAugment(num_magnitude_bins=31, interpolation="nearest"),
        RandAugment(num_ops=2, magnitude=9, num_magnitude_bins=31, interpolation="nearest"),
    )


def test_no_operation_is_the_image() -> None:
    images = torch.randint(0, 256, (3, 1, 5, 4), dtype=torch.uint8)
    assert torch.equal(RandAugment(num_ops=0)(images), images)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("magnitude", 31),
        ("magnitude", -1),
        ("num_ops", -1),
        ("num_magnitude_bins", 1),
        ("interpolation", "bicubic"),
    ],
)
def test_an_option_beyond_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^(unknown )?{option}"):
        RandAugment(**{option: value})

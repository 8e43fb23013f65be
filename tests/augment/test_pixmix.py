"""PixMix against a loop over images in float64, Pillow and NumPy, as its published code has it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from entprop_fast.augment import PixMix, parse_chain
from entprop_fast.augment.pixmix import sampled_weights
from entprop_fast.augment.sampled_levels import operations
from entprop_fast.counter_random import keys_of, uniforms
from entprop_fast.ops import backend
from entprop_fast.ops.image_chains import ImageOp
from entprop_fast.ops.pixmix_rounds import REFERENCE_OP, pixmix_rounds

Levels = NDArray[np.uint8]
GEOMETRIC = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}
NAMES = [op.name.lower() for op in ImageOp if op not in (ImageOp.IDENTITY, ImageOp.INVERT)]


@pytest.fixture
def mixing_set(tmp_path: Path) -> str:
    """Seven pictures of the size that is cut from for images of 16 pixels."""
    path = tmp_path / "pictures.npy"
    np.save(path, np.random.default_rng(2).integers(0, 256, (7, 18, 18, 3), dtype=np.uint8))
    return str(path)


def smooth(count: int, channels: int, height: int, width: int) -> Tensor:
    """Pictures with few steps, on which bilinear sampling is far from no rounding."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(count, channels, 3, 3, generator=generator) * 255
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return fine.clamp(0, 255).round().to(torch.uint8)


def applied(name: str, picture: Image.Image, severity: float, u: Any) -> Image.Image:
    """Apply an operation as pixmix_utils.py does, with numbers that were drawn for it."""
    level, sign = 0.1 + (severity - 0.1) * u[1], -1 if u[2] > 0.5 else 1
    if name in ("autocontrast", "equalize"):
        return getattr(ImageOps, name)(picture)  # type: ignore[no-any-return]
    if name == "posterize":
        return ImageOps.posterize(picture, 4 - int(level * 4 / 10))
    if name == "solarize":
        return ImageOps.solarize(picture, 256 - int(level * 256 / 10))
    if name == "rotate":
        return picture.rotate(sign * int(level * 30 / 10), Image.Resampling.BILINEAR)
    if name in GEOMETRIC:
        moves = [1.0, 0, 0, 0, 1.0, 0]
        if name == "shear_x":
            moves[1] = sign * level * 0.3 / 10
        elif name == "shear_y":
            moves[3] = sign * level * 0.3 / 10
        else:
            size = picture.width if name == "translate_x" else picture.height
            moves[2 if name == "translate_x" else 5] = sign * int(level * (size / 3) / 10)
        affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
        return picture.transform(picture.size, affine, moves, bilinear)
    enhancer = getattr(ImageEnhance, name.capitalize())
    return enhancer(picture).enhance(level * 1.8 / 10 + 0.1)  # type: ignore[no-any-return]


def described(
    augment: PixMix, image: Levels, key: Tensor, pictures: Levels
) -> tuple[NDArray[np.float64], set[str]]:
    """Mix one image, ``[H, W, C]`` or ``[H, W]``, and name the operations that were used."""
    k, used = augment.k, set()
    names = NAMES if augment.all_ops else NAMES[:9]
    drawn = uniforms(key[None], 5 + 5 * k + 3 * (k + 1))[0].double().numpy()
    one, rounds, copies = drawn[:5], drawn[5 : 5 + 5 * k], drawn[5 + 5 * k :].reshape(k + 1, 3)

    def augmented(copy: int) -> NDArray[np.float64]:
        name = names[int(copies[copy, 0] * len(names))]
        used.add(name)
        changed = applied(name, Image.fromarray(image), augment.severity, copies[copy])
        return np.asarray(changed).astype(np.float64) / 255

    height, width = image.shape[:2]
    side = pictures.shape[1]
    top, left = int(one[3] * (side - height + 1)), int(one[4] * (side - width + 1))
    crop = pictures[int(one[2] * len(pictures)), top : top + height, left : left + width]
    if image.ndim == 2:
        crop = np.asarray(Image.fromarray(crop).convert("L"))
    mixed = augmented(0) if one[1] < 0.5 else image / 255
    for number in range(int(one[0] * (k + 1))):
        u = rounds[5 * number :]
        other = augmented(number + 1) if u[0] < 0.5 else crop / 255
        a, b = u[3] ** (1 / augment.beta), 1 - u[4] ** (1 / augment.beta)
        if u[2] >= 0.5:
            a, b = 1 + (1 - a), -b
        if u[1] < 0.5:
            mixed = (2 * mixed) ** a * np.clip(2 * other, 1e-37, None) ** b / 2
        else:
            mixed = (a * (2 * mixed - 1) + b * (2 * other - 1) + 1) / 2
        mixed = np.clip(mixed, 0, 1)
    return mixed, used


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("options", "channels"),
    [({}, 3), ({"all_ops": True, "severity": 10, "beta": 1}, 3), ({"k": 2, "beta": 4}, 1)],
)
def test_images_are_mixed_as_described(
    dtype: torch.dtype, options: dict[str, Any], channels: int, mixing_set: str
) -> None:
    augment = PixMix(mixing_set=mixing_set, **options)
    images = smooth(60, channels, 13, 16)
    keys = keys_of(8, torch.arange(60))
    given = images if dtype == torch.uint8 else images.to(dtype) / 255
    found = augment.apply(given, keys)
    assert found.dtype == dtype
    assert torch.equal(given, images if dtype == torch.uint8 else images.to(dtype) / 255)
    pictures = np.load(mixing_set)
    exact = 0
    for image, key, row in zip(images, keys, found, strict=True):
        levels = image.permute(1, 2, 0).numpy().squeeze()
        expected, used = described(augment, levels, key, pictures)
        got = row.permute(1, 2, 0).numpy().squeeze().astype(np.float64)
        error = np.abs(got / 255 - expected if dtype == torch.uint8 else got - expected) * 255
        if used & GEOMETRIC:  # of which the operations are Pillow's to one level
            assert np.mean(error <= 2.5) > 0.97
        else:
            assert np.quantile(error, 0.999) < (0.501 if dtype == torch.uint8 else 0.01)
            exact += 1
    assert exact > 10


def test_weights_and_strengths_are_distributed_as_published() -> None:
    count, generator = 40_000, np.random.default_rng(0)
    rows = keys_of(3, torch.arange(count))
    a, b = sampled_weights(uniforms(rows, 3).double(), 3.0)
    first = generator.random(count) < 0.5
    beta = generator.beta
    expected_a = np.where(first, beta(3, 1, count), 1 + beta(1, 3, count))
    expected_b = np.where(first, 1, -1) * beta(1, 3, count)
    for found, expected in ((a, expected_a), (b, expected_b)):
        assert np.abs(np.sort(found.numpy()) - np.sort(expected)).mean() < 0.01
    u = uniforms(keys_of(1, rows), 3).unbind(1)
    codes, strengths = operations(*u, severity=3, all_ops=True, size=(32, 32))
    counts = torch.bincount(codes.long(), minlength=14)[1:]
    assert ((counts - count / 13).abs() < 4 * (count / 13) ** 0.5).all()
    level = generator.uniform(0.1, 3, count)
    sign = np.where(generator.random(count) > 0.5, -1, 1)
    published = {
        "POSTERIZE": 4 - (level * 4 / 10).astype(int),
        "ROTATE": (level * 30 / 10).astype(int) * sign,
        "SOLARIZE": 256 - (level * 256 / 10).astype(int),
        "SHEAR_X": level * 0.3 / 10 * sign,
        "TRANSLATE_Y": (level * (32 / 3) / 10).astype(int) * sign,
        "COLOR": level * 1.8 / 10 + 0.1,
    }
    for op in ImageOp:
        if op.name in published:
            steps, theirs = np.linspace(0.02, 0.98, 25), published[op.name]
            ours = np.quantile(strengths[codes == op].double().numpy(), steps)
            error = np.abs(ours - np.quantile(theirs, steps)).mean()
            assert error < 0.03 * np.ptp(theirs), op.name


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(99, 3, 7, 5), (1, 1, 1, 1), (0, 3, 4, 4), (25, 1, 6, 9)])
@pytest.mark.parametrize("kernels", [True, False])
def test_an_image_is_mixed_alike_in_any_batch_and_layout(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    kernels: bool,
    mixing_set: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not kernels:
        monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
        monkeypatch.setattr(sys.modules[pixmix_rounds.__module__], "OP", REFERENCE_OP)
    augment = PixMix(mixing_set=mixing_set)
    images = smooth(*shape) if shape[0] else torch.empty(shape, dtype=torch.uint8)
    images = images if dtype == torch.uint8 else (images / 255).to(dtype)
    ids = torch.arange(len(images)) + 100
    mixed = augment(images, ids, epoch=2)
    turned = images.to(memory_format=torch.channels_last)
    again = augment(turned, ids, epoch=2)
    assert torch.equal(again, mixed)
    assert again.stride() == turned.stride()
    alone = [augment(images[i : i + 1], ids[i : i + 1], epoch=2) for i in range(len(images))]
    assert torch.equal(torch.cat([mixed[:0], *alone]), mixed)
    if len(images) > 1:
        assert not torch.equal(augment(images, ids, epoch=3), mixed)


def test_half_of_the_images_stay_as_they_are_without_rounds(mixing_set: str) -> None:
    images = torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mixed = PixMix(k=0, mixing_set=mixing_set)(images, torch.arange(200))
    assert 70 < (mixed == images).flatten(1).all(1).sum() < 130
    half = PixMix(mixing_set=mixing_set)(images.bfloat16(), torch.arange(200))
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "class").mkdir()
    for number, (height, width, mode) in enumerate(((20, 33, "RGB"), (40, 24, "L"))):
        colour = np.full((height, width, 3), 50 * (number + 1), dtype=np.uint8)
        Image.fromarray(colour).convert(mode).save(tmp_path / "class" / f"{number}.png")
    yield tmp_path


def test_a_folder_and_an_npz_are_mixed_in(folder: Path, tmp_path: Path) -> None:
    images = torch.zeros(30, 3, 16, 16, dtype=torch.uint8)
    np.savez(tmp_path / "two.npz", images=np.full((2, 30, 20, 3), 50, dtype=np.uint8))
    one = PixMix(mixing_set=str(folder), beta=1.0)(images, torch.arange(30))
    other = parse_chain(f"pixmix:mixing_set={tmp_path}/two.npz,beta=1")(images, torch.arange(30))
    assert len(one.unique()) > 3
    assert len(other.unique()) > 3


def test_refusals_name_the_mixing_set(tmp_path: Path, folder: Path) -> None:
    for place in (tmp_path / "missing", tmp_path / "class" / "0.png", tmp_path / "missing.npy"):
        with pytest.raises(ValueError, match=place.name):
            PixMix(mixing_set=str(place))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        PixMix(mixing_set=str(tmp_path / "empty"))
    for empty in ("", " "):
        with pytest.raises(ValueError, match=r"mixing_set=.*is empty"):
            PixMix(mixing_set=empty)
    with pytest.raises(ValueError, match="mixing_set"):
        parse_chain("crop-flip+pixmix:mixing_set=,k=2")
    with pytest.raises(TypeError, match="mixing_set=3"):
        PixMix(mixing_set=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beta"):
        PixMix(beta=0)
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    (folder / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png"):
        PixMix(mixing_set=str(folder))(images)
    for name, values in (("object.npy", np.array([{}])), ("grey.npy", np.zeros((2, 8, 8)))):
        np.save(tmp_path / name, values, allow_pickle=True)
        with pytest.raises(ValueError, match=name):
            PixMix(mixing_set=str(tmp_path / name))(images)
    for name in ("text.npy", "text.npz"):
        (tmp_path / name).write_text("PK\3\4 text")
        with pytest.raises(ValueError, match=name):
            PixMix(mixing_set=str(tmp_path / name))(images)

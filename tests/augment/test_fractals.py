"""Fractals: a function of their seed, cached whole or not at all, with pictures' statistics."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from entprop_fast.augment import fractal_cache
from entprop_fast.augment.fractal_cache import cache_folder, file_name, fractals
from entprop_fast.augment.fractals import _julia, _singular_values, _system, make_fractals
from entprop_fast.augment.mixing_set import resized
from entprop_fast.counter_random import keys_of, uniforms


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return make_fractals(48, 32)


def test_a_picture_is_a_function_of_seed_and_number(pictures: torch.Tensor) -> None:
    assert pictures.shape == (48, 3, 32, 32)
    assert pictures.dtype == torch.uint8
    assert torch.equal(make_fractals(11, 32), pictures[:11])
    assert len(pictures.flatten(1).unique(dim=0)) == 48
    assert not torch.equal(make_fractals(8, 32, seed=1), pictures[:8])
    for count, size in ((0, 8), (8, 0)):
        with pytest.raises(ValueError, match=r"=0"):
            make_fractals(count, size)


def test_pictures_have_colour_contrast_and_structure_at_all_scales(pictures: torch.Tensor) -> None:
    """What IPMix finds to be enough for a mixing set: natural statistics, not one certain set."""
    values = pictures.double()
    assert (values.std((1, 2, 3)) > 20).double().mean() > 0.95
    assert (values.amax(1) - values.amin(1)).mean() > 60  # colourful
    grey = values.mean(1)
    power = torch.fft.fft2(grey - grey.mean((1, 2), keepdim=True)).abs().square()
    line = torch.fft.fftfreq(32, dtype=torch.float64) * 32
    radius = (line[:, None] ** 2 + line**2).sqrt().round().long()
    rings = torch.stack([power[:, radius == r].mean(1) for r in range(1, 16)], 1)
    # Power falls with frequency as a straight line of logarithms: natural images' slope is -2.
    x = torch.arange(1, 16, dtype=torch.float64).log()
    x = x - x.mean()
    y = (rings + 1).log()
    slope = (x * (y - y.mean(1, keepdim=True))).sum(1) / (x * x).sum()
    assert -3.5 < slope.mean() < -1
    assert slope.quantile(0.95) < -0.3  # hardly one is noise
    half = slope.quantile(0.05)
    assert half > -4.5  # nor without fine structure


def test_a_julia_set_is_that_of_a_loop_over_complex_numbers() -> None:
    keys = keys_of(4, torch.arange(8))
    u = uniforms(keys_of(3, keys), 6).double().numpy()
    line = np.linspace(-1, 1, 9)
    for tone, (angle, turn, reach, zoom, right, down) in zip(_julia(keys, 9), u, strict=True):
        point = np.exp(2j * np.pi * angle)
        c = (1 + 0.15 * reach) * (point / 2 - point**2 / 4)
        z = (line + 1j * line[:, None]) * (0.25 + zoom) * np.exp(2j * np.pi * turn)
        z = z + (right - 0.5) + 1j * (down - 0.5)
        total = np.zeros((9, 9))
        for _ in range(40):
            z = z * z + c
            z[np.abs(z) > 1e3] = 1e3
            total += 1 / (1 + np.abs(z) ** 4)
        # What is chaotic differs by rounding.
        assert np.quantile(np.abs(tone.numpy() - np.log1p(total)), 0.7) < 1e-3


def test_maps_contract_within_the_published_bounds() -> None:
    count = 500
    u = torch.rand(3, count, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    maps = torch.arange(count, dtype=torch.float64) % 5 + 2
    major, minor = _singular_values(maps, u[2, :, 0], u[0], u[1])
    used = torch.arange(6) < maps[:, None]
    assert ((0 <= minor) & (minor <= major + 1e-12) & (major <= 1 + 1e-12))[used].all()
    total = ((major + 2 * minor) * used).sum(1)
    assert torch.allclose(total, (5 + maps + u[2, :, 0]) / 2)
    system = _system(keys_of(0, torch.arange(50))).view(50, 256, 7)
    norms = torch.linalg.matrix_norm(system[..., :4].unflatten(2, (2, 2)), 2)
    assert (norms <= 1 + 1e-5).all()
    distinct = torch.tensor([len(one.unique(dim=0)) for one in system])
    assert distinct.unique().tolist() == [2, 3, 4, 5, 6]


def test_a_set_is_cached_whole_and_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = fractals(9, 8, 3)
    assert [path.name for path in cache_folder().iterdir()] == [file_name(9, 8, 3)]
    assert tmp_path in cache_folder().parents
    monkeypatch.setattr(fractal_cache, "make_fractals", None)
    assert torch.equal(fractals(9, 8, 3), made)


@pytest.mark.parametrize("kind", ["cut", "text", "other", "folder", "link", "pipe", "large"])
def test_a_broken_or_foreign_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / file_name(2, 8, 0)
    fractals(2, 8, 0, tmp_path)
    whole = path.read_bytes()
    path.unlink()
    if kind == "cut":
        path.write_bytes(whole[:-1])
    elif kind == "text":
        path.write_text("no numbers")
    elif kind == "other":
        np.save(path, np.zeros((2, 3, 8, 9), dtype=np.uint8))
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(tmp_path / "nothing")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(whole + bytes(10_000))
    with pytest.raises(ValueError, match=path.name):
        fractals(2, 8, 0, tmp_path)


def test_a_cache_that_cannot_be_written_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.warns(RuntimeWarning, match="file"):
        made = fractals(2, 8, 0, tmp_path / "file" / "folder")
    assert torch.equal(made, make_fractals(2, 8))


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(RuntimeWarning, match="No space"):
        fractals(2, 8, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_resizing_keeps_the_middle() -> None:
    wide = torch.arange(24, dtype=torch.uint8).expand(1, 3, 12, 24) * 10
    assert torch.equal(resized(wide, 12)[0, 0, 0], wide[0, 0, 0, 6:18])
    small = resized(wide, 6)
    assert small.shape == (1, 3, 6, 6)
    error = small[0, 0, 0].double() - 10 * (torch.arange(6) * 2 + 6.5)
    assert (error.abs() <= 1).all()

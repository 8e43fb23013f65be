"""What surrounds a call changes nothing: default dtype, autocast, tracing; and its refusals."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch._subclasses import FakeTensorMode

from entprop_fast.augment import (
    Augmentation,
    AugMix,
    Chain,
    CropFlip,
    Cutout,
    PixMix,
    Prime,
    RandAugment,
    as_transform,
    parse_chain,
)
from entprop_fast.augment.fractal_cache import read_fractals
from entprop_fast.augment.fractals import make_fractals
from entprop_fast.counter_random import keys_of
from entprop_fast.ops.prime_chains import REFERENCE_OP, prime_chains

IDS = torch.arange(5)
ALL: list[Augmentation] = [
    parse_chain("crop-flip+augmix:depth=2,alpha=.5,all_ops=true+erasing:p=1"),
    RandAugment(),
    RandAugment(num_ops=0),
    Cutout(length=5, value="random"),
    Prime(color_cut=5, warp_cut=5),
]


@pytest.fixture
def pixmix(tmp_path: Path) -> PixMix:
    path = tmp_path / "pictures.npy"
    np.save(path, np.random.default_rng(2).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8))
    return PixMix(mixing_set=str(path), k=2)


def images(dtype: torch.dtype) -> Tensor:
    levels = torch.randint(0, 256, (5, 3, 9, 8), generator=torch.Generator().manual_seed(1))
    return levels.to(torch.uint8) if dtype == torch.uint8 else (levels.double() / 255).to(dtype)


@contextlib.contextmanager
def default(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_nothing(dtype: torch.dtype, pixmix: PixMix) -> None:
    for given in (torch.uint8, torch.float32, torch.float64):
        for augment in (*ALL, pixmix):
            expected = augment(images(given), IDS)
            with default(dtype):
                assert torch.equal(augment(images(given), IDS), expected), augment
    expected = make_fractals(1, 8)
    with default(dtype):
        assert torch.equal(make_fractals(1, 8), expected)


def test_no_gradient_flows(pixmix: PixMix) -> None:
    """Crops could carry one, and levels cannot: all are alike."""
    for augment in (*ALL, CropFlip(), pixmix):
        given = images(torch.float32).requires_grad_()
        assert not augment(given, IDS).requires_grad, augment


def test_primes_reference_keeps_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[prime_chains.__module__]
    monkeypatch.setattr(module, "OP", REFERENCE_OP)
    augment, given = Prime(color_cut=5, warp_cut=5), images(torch.float32)
    expected = augment(given, IDS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(given, IDS), expected)
    with default(torch.float64):
        assert torch.equal(augment(given, IDS), expected)


def test_prime_keeps_any_layout() -> None:
    given = images(torch.float32)
    for like in (given.transpose(2, 3).contiguous().transpose(2, 3), given[:0]):
        for turned in (like, like.to(memory_format=torch.channels_last), like.half()):
            changed = ALL[-1](turned, IDS[: len(like)])
            assert changed.stride() == torch.empty_like(turned).stride()


def wrong(value: object) -> Any:
    """Hide a type from the type checker."""
    return value


def test_a_graph_can_be_traced() -> None:
    augment = Prime(width=1, depth=1)
    given = images(torch.float32)

    def numbered(x: Tensor, ids: Tensor) -> Tensor:
        return augment(x, ids, epoch=1)

    compiled: Any = torch.compile(numbered, fullgraph=True, backend="eager")
    assert torch.equal(compiled(given, IDS), augment(given, IDS, epoch=1))


def test_fake_tensors_are_augmented_and_leave_nothing_behind(pixmix: PixMix) -> None:
    with FakeTensorMode():
        for augment in (*ALL, pixmix):
            assert augment(torch.zeros(5, 3, 9, 8), torch.arange(5)).shape == (5, 3, 9, 8)
    assert pixmix(images(torch.uint8), IDS).sum() > 0


def test_an_empty_chain_gives_a_copy() -> None:
    given = images(torch.uint8)
    changed = parse_chain(" none ")(given)
    changed.zero_()
    assert given.sum() > 0


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda x: AugMix()(x, wrong([0] * 5)), TypeError, "ids is a list"),
        (lambda x: AugMix()(x, wrong(IDS.numpy())), TypeError, "ids is a ndarray"),
        (lambda x: AugMix()(x, generator=wrong(3)), TypeError, "generator is a int"),
        (lambda x: AugMix()(x.to("meta"), generator=torch.Generator()), ValueError, "generator"),
        (lambda x: AugMix()(x.to(torch.float8_e4m3fn)), TypeError, "float8_e4m3fn"),
        (lambda _: Chain(parts=("augmix",)), TypeError, "'augmix'"),  # type: ignore[arg-type]
        (lambda _: Chain(parts=AugMix()), TypeError, "parts="),  # type: ignore[arg-type]
        (lambda _: parse_chain(None), TypeError, "NoneType"),  # type: ignore[arg-type]
        (lambda _: parse_chain("none+augmix"), ValueError, "none"),
        (lambda _: CropFlip(padding=2**30), ValueError, "padding"),
    ],
)
def test_refusals_name_what_is_wrong(call: Any, error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        call(images(torch.float32))


def test_a_chain_of_a_list_is_one_of_a_tuple() -> None:
    chain = Chain(parts=[CropFlip(), AugMix()])  # type: ignore[arg-type]
    assert hash(chain) == hash(parse_chain("crop-flip+augmix"))
    keys = keys_of(3, IDS)
    twice = Chain(parts=(AugMix(), AugMix())).apply(images(torch.uint8), keys)
    assert not torch.equal(twice, AugMix().apply(AugMix().apply(images(torch.uint8), keys), keys))


@pytest.mark.parametrize("mode", ["P", "1", "HSV", "RGBA"])
def test_pictures_of_other_modes_are_refused(mode: str) -> None:
    pytest.importorskip("torchvision")
    picture = Image.new("RGB", (8, 8)).convert(mode)
    with pytest.raises(ValueError, match=mode):
        as_transform(AugMix())(picture)


def test_an_archive_in_the_place_of_cached_fractals_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.npy"
    path.write_bytes(b"PK\3\4 no archive")
    with pytest.raises(ValueError, match=path.name):
        read_fractals(path, 2, 8)
    with open(path, "wb") as file:
        np.savez(file, images=np.zeros((2, 8, 8, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=path.name):
        read_fractals(path, 2, 8)

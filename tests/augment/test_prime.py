"""Prime: whose draws are whose, dtypes, layouts and sizes, and its whole output's law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from entprop_fast.augment import Prime, parse_chain
from entprop_fast.ops.prime_chains import OP, REFERENCE_OP, reference
from tests.augment import prime_description as described


def pictures(count: int, channels: int = 3, size: tuple[int, int] = (17, 17)) -> Tensor:
    """Random levels with some structure."""
    torch.manual_seed(5)
    ramp = torch.linspace(0, 200, size[0] * size[1]).view(size)
    return (ramp + torch.randint(56, (count, channels, *size))).to(torch.uint8)


def arguments(images: Tensor, prime: Prime | None = None) -> tuple[object, ...]:
    prime = prime or Prime()
    drawn = prime.draw(torch.arange(len(images)) * 977, (images.shape[2], images.shape[3]))
    return (images, *drawn, 500 if prime.scale == "imagenet" else 100, prime.filter_size)


def test_an_image_is_augmented_alike_in_any_batch() -> None:
    images, ids = pictures(9), torch.arange(40, 49)
    whole = Prime(seed=3)(images, ids, epoch=2)
    order = torch.tensor([7, 0, 3])
    assert torch.equal(Prime(seed=3)(images[order], ids[order], epoch=2), whole[order])
    assert torch.equal(Prime(seed=3)(images[4:5], ids[4:5], epoch=2), whole[4:5])
    assert not torch.equal(Prime(seed=3)(images, ids, epoch=1), whole)
    assert not torch.equal(Prime(seed=4)(images, ids, epoch=2), whole)
    same = pictures(1).expand(9, -1, -1, -1)
    assert len({tuple(one.flatten().tolist()) for one in Prime()(same, ids)}) == 9


def test_the_generator_draws_without_ids() -> None:
    images = pictures(4)
    first, again = (Prime()(images, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, Prime()(images))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "scale"),
    [((1, 1), "cifar"), ((2, 7), "cifar"), ((3, 33), "cifar"), ((19, 5), "imagenet")],
)
def test_kernel_and_reference_agree_on_any_size(
    channels: int, size: tuple[int, int], scale: Literal["cifar", "imagenet"]
) -> None:
    given = arguments(pictures(6, channels, size) / 255, Prime(scale=scale, filter_size=5))
    ours, plain = OP(*given), REFERENCE_OP(*given)
    # A curve after a filter magnifies a rounding error some thousand times.
    apart = (ours - plain).abs().flatten()
    assert apart.quantile(0.95) < 1e-3
    assert apart.mean() < 2e-3
    assert 0 <= ours.min() and ours.max() <= 1 + 1e-6


@pytest.mark.parametrize("op", [OP, REFERENCE_OP], ids=["kernel", "reference"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_layouts_and_levels(op: torch._ops.OpOverload, count: int) -> None:
    images = pictures(count)
    given = arguments(images)
    result = op(*given)
    assert result.dtype == torch.uint8 and result.is_contiguous()
    last = op(images.contiguous(memory_format=torch.channels_last), *given[1:])
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, result)
    wide = torch.cat((images, images), dim=3)
    assert torch.equal(op(wide[..., :17], *given[1:]), result)
    exact = op(images / 255, *given[1:])
    assert ((exact * 255 - result).abs() <= 0.501).double().mean().nan_to_num(1) > 0.98


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floating_images_keep_their_dtype(dtype: torch.dtype) -> None:
    images = (pictures(3) / 255).to(dtype)
    before = images.clone()
    result = Prime()(images, torch.arange(3))
    assert result.dtype == dtype and torch.equal(images, before)
    expected = Prime()(images.float(), torch.arange(3))
    assert torch.equal(result, expected.to(dtype))


def test_a_chain_of_text_sets_options() -> None:
    chain = parse_chain("prime:scale=imagenet,depth=2,color-cut=30,filter-sigma=1/2")
    assert chain.parts == (Prime(scale="imagenet", depth=2, color_cut=30, filter_sigma=0.5),)
    assert chain(pictures(2), torch.arange(2)).shape == (2, 3, 17, 17)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0),
        ("depth", 0),
        ("warp_cut", 2),
        ("warp_alpha", -1.0),
        ("color_cut", 5000),
        ("color_temperature", -0.1),
        ("filter_size", 4),
        ("scale", "mnist"),
    ],
)
def test_options_that_are_not_valid(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Prime(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("op", [OP, REFERENCE_OP], ids=["kernel", "reference"])
@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        (0, "images", torch.zeros(2, 2, 3, 3)),
        (0, "images", torch.zeros(2, 3, 3, 3, dtype=torch.float64)),
        (1, "codes", torch.zeros(2, 3, dtype=torch.uint8)),
        (1, "codes", torch.zeros(3, 3, 3, dtype=torch.uint8)),
        (2, "keys", torch.zeros(2, 3, 3, dtype=torch.int32)),
        (3, "bands", torch.zeros(2, 3, 3, dtype=torch.int32)),
        (4, "scale", torch.zeros(2, 3, 3, dtype=torch.float64)),
        (5, "weights", torch.zeros(2, 2)),
        (6, "keep", torch.zeros(2, 1)),
        (7, "highest", 0),
        (8, "kernel", 4),
    ],
)
def test_arguments_that_do_not_fit(
    op: torch._ops.OpOverload, place: int, name: str, value: object
) -> None:
    given = list(arguments(pictures(2)))
    given[place] = value
    with pytest.raises(ValueError, match=f"^{name}"):
        op(*given)


def test_opcheck() -> None:
    images = pictures(2, size=(5, 7))
    torch.library.opcheck(OP, arguments(images.contiguous(memory_format=torch.channels_last)))
    for op in (OP, REFERENCE_OP):
        torch.library.opcheck(
            op, arguments(images / 255), test_utils=("test_schema", "test_faketensor")
        )


def test_nothing_waits_for_the_device() -> None:
    """Meta tensors have no values to ask for, and refuse to meet those of another device."""
    images = torch.empty(4, 3, 9, 8, dtype=torch.uint8, device="meta")
    keys = torch.empty(4, dtype=torch.int64, device="meta")
    assert Prime().apply(images, keys).shape == images.shape
    for highest in (100, 500):
        result = reference(images, *Prime().draw(keys, (9, 8)), highest, 3)
        assert result.shape == images.shape and result.dtype == torch.uint8


def test_the_whole_output_follows_the_original_description() -> None:
    images = pictures(1, size=(6, 6)) / 255
    count = 500
    ours = Prime()(images.expand(count, -1, -1, -1), torch.arange(count)).double().numpy()
    exact = images[0].double().numpy()
    theirs = np.stack([described.Draws(seed).augmented(exact) for seed in range(count)])
    summaries: tuple[Callable[[described.Array], described.Array], ...] = (
        lambda batch: np.abs(batch - exact).mean((1, 2, 3)),
        lambda batch: batch.mean((1, 2, 3)),
        lambda batch: batch.std((1, 2, 3)),
        lambda batch: np.abs(np.diff(batch, axis=3)).mean((1, 2, 3)),
        lambda batch: batch[:, 0, 3, 0],
        lambda batch: batch[:, 2, 5, 5],
    )
    for summary in summaries:
        assert apart(summary(ours), summary(theirs)) < 1.95 * (2 / count) ** 0.5
    error = (ours.std(0) ** 2 + theirs.std(0) ** 2) ** 0.5 / count**0.5
    assert np.abs((ours.mean(0) - theirs.mean(0)) / error).max() < 4.2  # of 108 numbers


def apart(one: described.Array, other: described.Array) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples."""
    both = np.sort(np.concatenate((one, other)))
    shares = [
        np.searchsorted(np.sort(part), both, side="right") / len(part) for part in (one, other)
    ]
    return float(np.abs(shares[0] - shares[1]).max())

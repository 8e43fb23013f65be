"""How norms are cut for cards of several sizes: one full wave, both groups' tiles, few plans made.

Nothing runs but the last test.
"""

from collections.abc import Iterator
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from entprop_fast.kernels import device
from entprop_fast.kernels import dual_batch_norm_cut as cutting
from entprop_fast.kernels import dual_batch_norm_plan as planning
from entprop_fast.kernels.device import Card
from entprop_fast.kernels.dual_batch_norm import dual_batch_norm
from entprop_fast.kernels.dual_batch_norm_backward import dual_batch_norm_backward
from entprop_fast.norm_half import Half

# A100, H100 of both kinds, B200, RTX 5090.
MULTIPROCESSORS = (108, 114, 132, 148, 170)
# WRN-28-10 and ResNet-18 at 32, ResNet-50 at 224, an EfficientNet's, a stem's.
WRN = ((16, 32), (160, 32), (320, 16), (640, 8))
RESNET18 = ((64, 32), (128, 16), (256, 8), (512, 4))
RESNET50 = (
    (64, 112), (64, 56), (256, 56), (128, 56), (128, 28), (512, 28), (256, 28), (256, 14),
    (1024, 14), (512, 14), (512, 7), (2048, 7),
)  # fmt: skip
OTHERS = ((32, 112), (96, 112), (24, 56), (144, 56), (40, 28), (80, 14), (1280, 7), (3, 224))
# Rows, and how many of them are main: one group, entprop_pipelined's two, others.
ROWS = ((128, 128), (154, 128), (154, 64), (64, 64), (26, 0), (26, 26), (256, 255))


def _plans(
    shapes: tuple[tuple[int, int], ...], multiprocessors: int, contiguous: bool
) -> Iterator[tuple[torch.Size, planning.Plan]]:
    """Make the plans of shapes in all groups, of 2 and 4 bytes, alone and beside a residual."""
    card = Card(multiprocessors)
    for (channels, side), (rows, main), itemsize, halves in product(
        shapes, ROWS, (2, 4), (False, True)
    ):
        shape = torch.Size((rows, channels, side, side))
        yield shape, planning._plan(shape, main, contiguous, itemsize, halves, card, cutting.CUT)


def _tiles(plan: planning.Plan) -> tuple[int, int]:
    """The tiles of each group, counted from the kernels' arguments."""
    main, aux, _, pixels, *_ = plan.sizes
    size = plan.constants["BLOCK_E"]
    if plan.channels_last:
        return -(-main * pixels // size), -(-aux * pixels // size)
    return main * -(-pixels // size), aux * -(-pixels // size)


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("multiprocessors", MULTIPROCESSORS)
def test_one_full_wave(multiprocessors: int, contiguous: bool) -> None:
    slots = 2 * multiprocessors
    full = 0
    for shape, plan in _plans(WRN + RESNET18 + RESNET50 + OTHERS, multiprocessors, contiguous):
        blocks, chunks = plan.grid
        assert blocks * plan.constants["BLOCK_C"] >= shape[1]
        assert blocks * chunks <= slots, f"{shape}: {plan}"
        if sum(_tiles(plan)) * blocks >= slots and chunks < cutting.CUT.max_chunks:
            assert blocks * chunks >= 0.85 * slots, f"{shape}: {plan}"
            full += 1
    assert full > 400


@pytest.mark.parametrize("multiprocessors", MULTIPROCESSORS)
def test_sixty_four_channels_fill_a_wave(multiprocessors: int) -> None:
    """Of a ResNet-18's first stage and a ResNet-50's largest tensors, at the batches trained."""
    for side, rows in product((32, 56, 112), (128, 154)):
        shape = torch.Size((rows, 64, side, side))
        plan = planning._plan(shape, 128, False, 2, False, Card(multiprocessors), cutting.CUT)
        assert 0.85 * 2 * multiprocessors <= plan.grid[0] * plan.grid[1] <= 2 * multiprocessors


@pytest.mark.parametrize("contiguous", [False, True])
def test_no_other_split_has_shorter_chunks(contiguous: bool) -> None:
    """Each group has chunks if and only if it has rows, none is empty, the longest is shortest."""
    for shape, plan in _plans(WRN + RESNET18 + RESNET50, 132, contiguous):
        tiles, chunks = _tiles(plan), plan.sizes[4:]
        assert sum(chunks) == plan.grid[1]
        for group, own in zip(tiles, chunks, strict=True):
            assert (own > 0) == (group > 0) and own <= group, f"{shape}: {plan}"
        if all(tiles):
            allowed = max(sum(chunks), 2)
            longest = max(-(-g // own) for g, own in zip(tiles, chunks, strict=True))
            best = min(
                max(-(-tiles[0] // main), -(-tiles[1] // (allowed - main)))
                for main in range(1, allowed)
            )
            assert longest == best, f"{shape}: {plan}"


def test_batch_and_split_change_no_constant() -> None:
    """They would compile the kernels anew."""
    card = Card()
    for contiguous, channels in product((False, True), (64, 160, 512)):
        constants = {
            tuple(
                planning._plan(
                    torch.Size((rows, channels, 16, 16)), main, contiguous, 2, False, card,
                    cutting.CUT,
                ).constants.items()
            )
            for rows, main in ROWS
        }  # fmt: skip
        assert len(constants) == 1


def test_more_channels_than_a_wave_has_programs() -> None:
    shape = torch.Size((8, 40000, 4, 4))
    plan = planning._plan(shape, 4, False, 2, False, Card(), cutting.CUT)
    assert plan.grid == (625, 2)  # a chunk for each group: more than one wave


def test_the_driver_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def properties(found: torch.device) -> SimpleNamespace:
        asked.append(found)
        return SimpleNamespace(multi_processor_count=108, major=8)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    device.card_of.cache_clear()
    try:
        for index in (0, 1, 0, 1):
            assert device.card_of(torch.device("cuda", index)) == Card(108, overlaps=False)
    finally:
        device.card_of.cache_clear()
    assert [found.index for found in asked] == [0, 1]
    assert device.card_of(torch.device("cpu")) == device.card_of(torch.device("meta")) == Card(132)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_tiles_in_flight_change_no_bit(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several tiles a chunk, of the same size: a pipelined loop takes half by itself."""
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(6, 8, 6, 6, generator=generator) for _ in range(2))
    if layout == "channels_last":
        x, grad = (t.contiguous(memory_format=torch.channels_last) for t in (x, grad))
    vectors = torch.rand(4, 8, generator=generator)
    results = []
    for stages, size in ((1, 1024), (3, 1024 if layout == "contiguous" else 2048)):
        cut = cutting.CUT._replace(
            tile_bytes=size, plane_tile_bytes=4096 if layout == "channels_last" else 1024,
            max_chunks=3, sum_bytes=2**20, stages=stages,
        )  # fmt: skip
        monkeypatch.setattr(cutting, "CUT", cut)
        assert planning.make_plan(x, 4).constants["STAGES"] == stages
        moved = [vector.clone() for vector in vectors]
        half = Half(moved[0], moved[1], moved[2], moved[3])
        y, mean, rstd, mask, _ = dual_batch_norm(x, None, half, half, 4, True)
        kept = (mean, rstd, mask, 4, True, [True, False, True, True])
        gradients = dual_batch_norm_backward(grad, x, None, half, half, *kept)
        results.append([y, mean, rstd, *moved, *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

"""`python -m bench.roofline` counts a step as one does by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bench import rows as bench_rows
from bench.roofline import measured as found_rows
from bench.roofline import table
from bench.roofline.cards import CARDS, Card, bound, seconds, small_share
from bench.roofline.counting import Counts, count
from bench.roofline.op import COPIES, KINDS, NORMS, OPTIMISER, OURS, PRODUCTS, Op
from bench.roofline.rows import ARCHS, NAME, counted_rows, counts_of, row_of
from bench.roofline.steps import ENTPROP, PIPELINED, PLAIN, STEPS, STRONG, VANILLA, Size, Step
from entprop_fast.reference import num_selected
from tests.fake_cuda.device import library_or_skip

ROOT = Path(__file__).parents[2]
SIZE = Size("wrn10_1", 20, 16, 10)
META = torch.device("meta")
# WRN-10-1: channels in and out of each convolution, its kernel, and the pixels of its result.
CONVOLUTIONS = (
    *((3, 16, 3, 256), (16, 16, 3, 256), (16, 16, 3, 256)),
    *((16, 32, 3, 64), (32, 32, 3, 64), (16, 32, 1, 64)),
    *((32, 64, 3, 16), (64, 64, 3, 16), (32, 64, 1, 16)),
)
NORM_SIZES = ((16, 256),) * 3 + ((32, 64),) * 2 + ((64, 16),) * 2  # channels and pixels
SUMMED = (16 * 256, 32 * 64, 64 * 16)  # what two blocks and the last norm take together
TWICE_USED = (16 * 256, 32 * 64)  # by a convolution and a shortcut


@pytest.fixture(scope="module")
def counted() -> dict[str, Counts]:
    """Every step of a small network, by its name."""
    found = counted_rows([SIZE], library_or_skip())
    return {row["step"]: counts_of(row) for row in found}


def forward_flop() -> tuple[int, int]:
    """Of an image, through the network and through its first convolution."""
    each = [2 * into * out * kernel**2 * pixels for into, out, kernel, pixels in CONVOLUTIONS]
    return sum(each) + 2 * 64 * SIZE.classes, each[0]


def test_flop_of_plain_training_are_those_of_the_formula(counted: dict[str, Counts]) -> None:
    """Three times the forward's, but for the images' gradient, which nobody asks for."""
    forward, first = forward_flop()
    for step in (PLAIN, VANILLA):
        assert counted[step.name].flop == SIZE.batch * (3 * forward - first)
        assert counted[step.name].of(PRODUCTS).flop == counted[step.name].flop


@pytest.mark.parametrize("step", [ENTPROP, STRONG, PIPELINED])
def test_flop_of_entprop_are_the_papers_without_gradients_nobody_uses(
    step: Step, counted: dict[str, Counts]
) -> None:
    """1 + k n times plain training's, but that passes i < n have no weights' gradients."""
    forward, first = forward_flop()
    k, n = step.k_and_n or (0, 0)
    m = num_selected(k, SIZE.batch)
    main, middle = SIZE.batch * 3 * forward, (n - 1) * m * 2 * forward
    last = m * (3 * forward - (0 if step is PIPELINED else first))
    assert counted[step.name].flop == main + middle + last
    assert last + middle <= k * n * SIZE.batch * 3 * forward
    if n == 1:
        assert counted[step.name].flop / counted[VANILLA.name].flop == pytest.approx(
            1 + k, rel=0.04
        )


@pytest.mark.parametrize("step", [VANILLA, ENTPROP, STRONG, PIPELINED])
def test_norms_move_eight_passes(step: Step, counted: dict[str, Counts]) -> None:
    """Three forward and five backward, in bfloat16; beside them a few numbers a channel.

    A norm that takes the sum before it reads the addend and writes the sum; one whose output has a
    second gradient reads that in both launches.
    """
    k, n = step.k_and_n or (0, 0)
    rows = SIZE.batch + n * (num_selected(k, SIZE.batch) if k else 0)
    passes = 1 if step is PIPELINED else 1 + n
    images = 8 * 2 * rows * sum(channels * pixels for channels, pixels in NORM_SIZES)
    images += 2 * 2 * rows * (sum(SUMMED) + sum(TWICE_USED))
    a_channel = passes * 4 * 24 * sum(channels for channels, _ in NORM_SIZES)
    assert images < counted[step.name].of(NORMS).bytes < images + a_channel


def test_launches_are_those_of_the_kernels(counted: dict[str, Counts]) -> None:
    norms, convolutions = len(NORM_SIZES), len(CONVOLUTIONS)
    for step in (PLAIN, VANILLA):
        plain = counted[step.name]
        assert plain.of(NORMS).launches == 4 * norms
        # Forward, images' gradients but the first's, weights' gradients; 3 of the classifier.
        assert plain.named("aten.convolution").launches == convolutions
        assert plain.named("aten.convolution_backward").launches == 2 * convolutions - 1
        assert plain.of(PRODUCTS).launches == 3 * convolutions - 1 + 3
        assert plain.of(OPTIMISER).launches == 1  # of 48 tensors at most
    m = num_selected(0.6, SIZE.batch)
    strong, n = counted[STRONG.name], 5
    assert strong.of(NORMS).launches == 4 * norms * (1 + n)
    assert strong.of(OURS).launches == (1 + n) + 1 + n  # losses, selection, attack
    assert strong.named("entprop_fast.gather_perturb").bytes >= 3 * m * 3 * 16 * 16 * 4
    assert strong.named("entprop_fast.perturb_").launches == n - 1
    assert counted[PIPELINED.name].of(NORMS).launches == 4 * norms
    for counts in counted.values():
        assert counts.launches == sum(counts.of(kind).launches for kind in KINDS)


def test_a_second_gradient_is_added_as_it_comes(counted: dict[str, Counts]) -> None:
    """Four bytes read, two read and four written; only the first pass's are upcast."""
    weights = sum(i * o * k * k for i, o, k, _ in CONVOLUTIONS) + 65 * SIZE.classes
    upcasts = {
        name: sum(
            n for op, n in counts.named("aten._to_copy").ops.items() if op.dtype == "bfloat16"
        )
        for name, counts in counted.items()
    }
    of_images = {ENTPROP.name: 1, STRONG.name: 5}  # the gradients that the attack reads
    for step in (ENTPROP, STRONG):
        added = counted[step.name].named("aten.add_")
        assert (added.launches, added.bytes) == (len(CONVOLUTIONS) + 2, 10 * weights)
        assert upcasts[step.name] == upcasts[VANILLA.name] + of_images[step.name]


def test_the_optimiser_moves_three_tensors_and_reads_gradients(counted: dict[str, Counts]) -> None:
    weights = sum(i * o * k * k for i, o, k, _ in CONVOLUTIONS) + 65 * SIZE.classes
    for step, halves in ((PLAIN, 1), (ENTPROP, 2)):
        parameters = weights + halves * 2 * sum(channels for channels, _ in NORM_SIZES)
        moved = counted[step.name].of(OPTIMISER).bytes
        assert moved == 5 * 4 * parameters + 4  # and lr


def test_weights_are_cast_and_their_gradients_back(counted: dict[str, Counts]) -> None:
    """Two bytes and four of each, and two and four back; gradients have their weights' layout.

    Copied into another they would be eight bytes more.
    """
    weights = sum(i * o * k * k for i, o, k, _ in CONVOLUTIONS)
    assert 12 * weights < counted[VANILLA.name].of(COPIES).bytes < 16 * weights


CARD = Card("H100", 100.0, 2.0, 1, 50, ())


def test_each_op_takes_the_longer_of_its_two_times() -> None:
    slow = Op(PRODUCTS, "a", "bfloat16", flop=3 * 10**12, bytes=10**9)
    wide = Op(PRODUCTS, "b", "bfloat16", flop=10**9, bytes=4 * 10**9)
    assert seconds(slow, CARD) == pytest.approx(0.03)
    assert seconds(wide, CARD) == pytest.approx(0.002)
    counts = Counts([slow, wide, wide])
    assert bound(counts, CARD) == pytest.approx(0.034)
    assert (counts.flop, counts.bytes, counts.launches) == (3 * 10**12 + 2 * 10**9, 9 * 10**9, 3)
    assert small_share(Counts([slow, Op(COPIES, "c", "", bytes=10**7)]), CARD) == 10**7 / 1.01e9
    with pytest.raises(ValueError, match="float32"):
        seconds(Op(PRODUCTS, "c", "float32", flop=1), CARD)


def test_counts_outlive_their_rows() -> None:
    a = torch.rand(3, 3)
    counts = count(lambda: F.relu(a @ a) + a)
    row = json.loads(json.dumps(row_of(SIZE, PLAIN, counts)))
    assert counts_of(row).ops == counts.ops and counts.flop == 54


PROFILE = """\
net_a, ours, captured: 19881 us a step, 19428 us of kernels (profiler on)
    11702.1 us   60%  convolutions and products
       10.0 us    0%  our norms
        2.5 us    0%  cuDNN and native norms
      2039.3 us   50.0 x  _apply
net_b, vanilla eager channels_last: 3 us a step, 2 us of kernels (profiler on)
        1.0 us   50%  copies
"""


def test_a_profile_is_read_by_class() -> None:
    found = found_rows.profiled_in(PROFILE)
    ours, plain = found["net_a", "ours, captured"], found["net_b", "vanilla eager channels_last"]
    assert ours == pytest.approx({PRODUCTS: 11702.1e-6, NORMS: 12.5e-6})
    assert plain == pytest.approx({COPIES: 1e-6})
    assert found_rows.profiled().keys() == {
        (arch, step.name) for arch in ("wrn28_10", "resnet18") for step in (ENTPROP, PLAIN)
    }


def test_measured_rows_stand_beside_their_own_step(monkeypatch: pytest.MonkeyPatch) -> None:
    size = {"arch": "a", "batch": 128, "pixels": 32}
    row = size | {"k": 0.2, "n": 1, "machine": "NVIDIA H100 80GB", "contender": STRONG.eager}
    strong = {"k": 0.6, "n": 5, "seconds": 2.0}
    rows = [row | {"seconds": None}, row | {"seconds": 1.0}, row | strong]
    monkeypatch.setattr(bench_rows, "there", lambda name: name == "step_cuda")
    monkeypatch.setattr(bench_rows, "read", lambda name: rows)

    def time(
        step: Step, card: str = "H100", *, captured: bool = False, **other: object
    ) -> float | None:
        found = found_rows.measured(size | other, step, CARDS[card], captured=captured)
        return None if found is None else float(found["seconds"])

    assert time(ENTPROP) == 1 and time(STRONG) == 2
    assert time(ENTPROP, "A100") is time(ENTPROP, captured=True) is time(VANILLA) is None
    for other in ({"arch": "b"}, {"batch": 64}, {"pixels": 224}):
        assert time(ENTPROP, **other) is None


def test_launches_are_the_captured_steps_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = {"arch": "a", "batch": 128, "pixels": 32}
    row = size | {"k": 0.2, "n": 1, "machine": "NVIDIA H100 80GB"}
    rows = [row | {"contender": ENTPROP.eager, "launches": 3}]
    monkeypatch.setattr(bench_rows, "there", lambda name: name == "step_cuda")
    monkeypatch.setattr(bench_rows, "read", lambda name: rows)
    assert found_rows.launches(size, ENTPROP, CARDS["H100"]) == 3
    rows.append(row | {"contender": ENTPROP.captured, "launches": 4})
    assert found_rows.launches(size, ENTPROP, CARDS["H100"]) == 4
    assert found_rows.launches(size | {"batch": 64}, ENTPROP, CARDS["H100"]) is None


def test_the_page_has_every_network_and_step() -> None:
    found = bench_rows.read(NAME)
    assert [(row["arch"], row["step"]) for row in found] == [
        (arch, step.name) for arch in ARCHS for step in STEPS
    ]
    shown = table.section_of(found, CARDS["H200"])
    assert shown.count("unmeasured") == 2 * len(found)
    assert table.section(Path("docs/gpu_time.md")).count("unmeasured") < 2 * len(found)

"""`python -m bench.roofline` counts a step as one does by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench import rows as bench_rows
from bench.roofline import measured as found_rows
from bench.roofline import table
from bench.roofline.cards import CARDS, Card, bound, seconds, small_share
from bench.roofline.counting import Counts, count
from bench.roofline.op import COPIES, KINDS, NORMS, OPTIMISER, OURS, PRODUCTS, Op
from bench.roofline.rows import ARCHS, NAME, counted_rows, counts_of, row_of
from bench.roofline.rules import multi_tensor_launches
from bench.roofline.steps import ENTPROP, PIPELINED, PLAIN, STEPS, STRONG, VANILLA, Size, Step
from entprop_fast.norm_half import Half
from entprop_fast.ops import backend, dual_batch_norm, gather_perturb, perturb_
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
PARAMETERS = len(CONVOLUTIONS) + 2 * len(NORM_SIZES) + 2


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
    k, n = step.k_and_n
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
    """Three forward and five backward, in bfloat16; beside them a few numbers a channel."""
    k, n = step.k_and_n or (0, 0)
    rows = SIZE.batch + n * (num_selected(k, SIZE.batch) if k else 0)
    passes = 1 if step is PIPELINED else 1 + n
    images = 8 * 2 * rows * sum(channels * pixels for channels, pixels in NORM_SIZES)
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


def test_the_optimiser_moves_three_tensors_and_reads_gradients(counted: dict[str, Counts]) -> None:
    weights = sum(i * o * k * k for i, o, k, _ in CONVOLUTIONS) + 65 * SIZE.classes
    for step, halves in ((PLAIN, 1), (ENTPROP, 2)):
        parameters = weights + halves * 2 * sum(channels for channels, _ in NORM_SIZES)
        moved = counted[step.name].of(OPTIMISER).bytes
        assert moved == 5 * 4 * parameters + 4  # and lr


def test_weights_are_cast_and_their_gradients_back(counted: dict[str, Counts]) -> None:
    """Two bytes and four of each, and two and four back."""
    weights = sum(i * o * k * k for i, o, k, _ in CONVOLUTIONS)
    assert 12 * weights < counted[VANILLA.name].of(COPIES).bytes


def passes_of_docs(page: str, row: str) -> list[int]:
    """Return the numbers that end the cells of a table's row."""
    text = (ROOT / "docs" / "kernels" / page).read_text()
    line = next(line for line in text.splitlines() if line.startswith(f"| {row} |"))
    return [int(number) for number in re.findall(r": (\d+)(?= |\))", line)]


def norm_passes(*, residual: bool, relu: bool, trains: bool) -> tuple[list[int], list[int]]:
    """Tensor passes, and launches, of a norm forward and backward, in groups of two."""
    x, other = (torch.rand(8, 32, 64, 64, requires_grad=True) for _ in range(2))
    weight, statistics = (torch.ones(32, requires_grad=trains) for _ in range(2))
    half = Half(weight, weight, statistics.detach(), statistics.detach().clone(), training=trains)
    outputs: list[Tensor] = []

    def forward() -> None:
        added = other if residual else None
        outputs.append(dual_batch_norm(x, half, half, 5, residual=added, relu=relu))

    steps: tuple[Callable[[], object], ...] = (forward, lambda: outputs[0].backward(x.detach()))
    counts = [count(step).of(NORMS) for step in steps]
    passes = [round(one.bytes / (x.numel() * 4), 1) for one in counts]
    assert all(number == int(number) for number in passes)
    return [int(number) for number in passes], [one.launches for one in counts]


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors without values that the ops take as they do a GPU's."""
    monkeypatch.setattr(backend, "KERNEL_DEVICES", {"meta"})
    with META:
        yield


@pytest.mark.usefixtures("on_meta")
def test_passes_of_norms_are_those_of_their_page() -> None:
    page = "dual_batch_norm_gpu.md"
    for row, residual in (("norm + ReLU", False), ("+ residual", True)):
        passes, launches = norm_passes(residual=residual, relu=True, trains=True)
        assert passes == passes_of_docs(page, row), row
        assert launches == [2, 2]
    frozen = passes_of_docs(page, "frozen")
    for relu, expected in ((True, frozen[:2]), (False, [frozen[0], frozen[2]])):
        passes, launches = norm_passes(residual=False, relu=relu, trains=False)
        assert passes == expected
        assert launches == [1, 1]


@pytest.mark.usefixtures("on_meta")
def test_a_residuals_gradient_alone_is_read_and_written() -> None:
    """The images' is asked for by nobody: three reads for the ReLU's sign, one write."""
    x, residual = torch.rand(8, 32, 64, 64), torch.rand(8, 32, 64, 64, requires_grad=True)
    y = dual_batch_norm(x, Half(training=True), Half(training=True), residual=residual, relu=True)
    counts = count(lambda: y.backward(x)).of(NORMS)
    assert round(counts.bytes / (x.numel() * 4), 1) == 4 and counts.launches == 1


@pytest.mark.usefixtures("on_meta")
def test_passes_of_the_attack_are_those_of_its_page() -> None:
    text = (ROOT / "docs" / "kernels" / "perturb_gpu.md").read_text()
    told = re.search(r"writes the result, (\d) passes; in place (\d) ", text)
    assert told is not None
    x, grad = torch.rand(64, 3, 32, 32), torch.rand(64, 3, 32, 32)
    index, bounds = torch.zeros(16, dtype=torch.int64), [torch.ones(3)] * 4
    rows = 16 * 3 * 32 * 32 * 4
    found: list[Tensor] = []
    gather = count(lambda: found.append(gather_perturb(x, grad, index, *bounds)))
    assert gather.bytes // rows == int(told[1]) and gather.launches == 1
    again = count(lambda: perturb_(found[0], grad[:16], x, index, *bounds))
    assert again.bytes // rows == int(told[2]) and again.launches == 1


def one(step: Callable[[], object]) -> Op:
    """The only op of a step."""
    counts = count(step)
    assert counts.ops.total() == 1, counts.ops
    return next(iter(counts.ops))


def test_what_is_read_and_written_counts_once() -> None:
    a, b = torch.rand(10, 30), torch.rand(10, 30)
    assert one(lambda: a + b).bytes == 3 * 1200
    assert one(lambda: a.add_(b)).bytes == 3 * 1200  # a read, a written, b read
    assert one(lambda: a.copy_(b)).bytes == 2 * 1200
    assert one(lambda: a.zero_()).bytes == 1200
    assert one(lambda: torch.add(a, b, out=b)).bytes == 3 * 1200
    assert one(lambda: a.to(torch.bfloat16)) == Op(COPIES, "aten._to_copy", "float32", 0, 1800, 1)
    assert one(lambda: b.sum(0)).bytes == 1200 + 120
    assert one(lambda: a + b[0].expand(10, 30)).bytes == 2 * 1200 + 120
    assert one(lambda: a[torch.tensor([1, 2])]).bytes == 2 * 240 + 16


def test_views_and_bare_memory_are_free() -> None:
    a = torch.rand(10, 30)
    for step in (lambda: a.view(-1)[3:].t(), lambda: torch.empty_like(a), lambda: a.detach()):
        assert not count(step).ops


def test_gradients_of_a_convolution_are_kernels_of_their_own() -> None:
    """A stride, a bias and one channel more: 5 x 7 x 3 x 3 weights on 4 x 4 of 8 x 8 pixels."""
    layer = nn.Conv2d(7, 5, 3, stride=2, padding=1)
    x = torch.rand(2, 7, 8, 8, requires_grad=True)
    out = []
    forward = one(lambda: out.append(layer(x)))
    images, weights, results = 4 * 2 * 7 * 64, 4 * 5 * 7 * 9, 4 * 2 * 5 * 16
    flop = 2 * 2 * 16 * 5 * 7 * 9
    assert (forward.flop, forward.bytes) == (flop, images + weights + results + 4 * 5)
    back = count(lambda: out[0].backward(torch.rand(2, 5, 4, 4))).named("aten.convolution_backward")
    moved = [results + weights + images] * 2 + [results + 4 * 5]
    assert sorted((op.bytes, op.flop) for op in back.ops.elements()) == sorted(
        zip(moved, (flop, flop, 0), strict=True)
    )


def test_many_tensors_take_as_many_launches_as_they_fill() -> None:
    chunk = 65536
    assert multi_tensor_launches([320 * chunk], 1) == 1
    assert multi_tensor_launches([320 * chunk + 1], 1) == 2
    assert multi_tensor_launches([1] * 110, 1) == 1
    assert multi_tensor_launches([1] * 111, 1) == 2
    assert multi_tensor_launches([1] * 97, 3) == 3
    assert multi_tensor_launches([200 * chunk, 200 * chunk, 1], 2) == 2
    assert multi_tensor_launches([], 1) == 0


def test_only_the_device_counts() -> None:
    a = torch.rand(3)
    assert not count(lambda: a + a, META).ops
    assert len(count(lambda: (a + a, torch.ones(3, device=META) + 1), META).ops) == 2


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
    row = {"arch": "a", "k": 0.2, "n": 1, "machine": "NVIDIA H100 80GB", "contender": STRONG.eager}
    rows = [row | {"seconds": None}, row | {"seconds": 1.0}, row | {"n": 5, "seconds": 2.0}]
    monkeypatch.setattr(bench_rows, "there", lambda name: name == "step_cuda")
    monkeypatch.setattr(bench_rows, "read", lambda name: rows)

    def time(arch: str, step: Step, card: str = "H100", *, captured: bool = False) -> float | None:
        found = found_rows.measured(arch, step, CARDS[card], captured=captured)
        return None if found is None else float(found["seconds"])

    assert time("a", ENTPROP) == 1
    assert time("b", ENTPROP) is time("a", STRONG) is time("a", ENTPROP, "A100") is None
    assert time("a", ENTPROP, captured=True) is time("a", VANILLA) is None


def test_the_page_has_every_network_and_step() -> None:
    found = bench_rows.read(NAME)
    assert [(row["arch"], row["step"]) for row in found] == [
        (arch, step.name) for arch in ARCHS for step in STEPS
    ]
    shown = table.section_of(found, CARDS["H200"])
    assert shown.count("unmeasured") == 2 * len(found)
    assert table.section(Path("docs/gpu_time.md")).count("unmeasured") < 2 * len(found)

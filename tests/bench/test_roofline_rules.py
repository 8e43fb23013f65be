"""What an op costs, by hand, and the passes of ours by their pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.roofline.counting import count
from bench.roofline.op import COPIES, NORMS, Op
from bench.roofline.rules import multi_tensor_launches
from entprop_fast.norm_half import Half
from entprop_fast.ops import backend, dual_batch_norm, gather_perturb, perturb_

ROOT = Path(__file__).parents[2]
META = torch.device("meta")


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
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
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
    assert multi_tensor_launches([1] * 109 + [2 * chunk], 1) == 1  # the last one ends within
    assert multi_tensor_launches([321 * chunk] + [1] * 110, 1) == 3  # a part is a tensor, too
    assert multi_tensor_launches([], 1) == 0


def test_only_the_device_counts() -> None:
    a = torch.rand(3)
    assert not count(lambda: a + a, META).ops
    assert len(count(lambda: (a + a, torch.ones(3, device=META) + 1), META).ops) == 2

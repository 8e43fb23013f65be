"""Accumulated batches take the step of one whole batch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entprop_fast import create_method
from entprop_fast.lab.cli import train
from entprop_fast.lab.cli.flags import method_flags, parse, run_flags
from entprop_fast.lab.training.accumulation import Accumulation
from entprop_fast.lab.training.method_settings import settable
from entprop_fast.lab.training.optim import learning_rate
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.methods import METHODS, Method
from tests.lab.conftest import Call, rows

CLASSES = 4


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Flatten(), nn.Linear(12, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, CLASSES))
    return nn.Sequential(*layers).double()


def vanilla(model: nn.Module, **options: Any) -> Method:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    return create_method("vanilla", model, optimizer, **options)


def batches(count: int, rows: int) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [
        (
            torch.rand(rows, 3, 2, 2, generator=draw, dtype=torch.float64),
            torch.randint(CLASSES, (rows,), generator=draw),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("options", [{}, {"max_grad_norm": 0.05}, {"label_smoothing": 0.1}])
def test_half_batches_are_the_whole_batch(options: dict[str, Any]) -> None:
    """Of a network whose norms look at one row; the last group of an epoch has one half."""
    halves, start = batches(5, 4), network()
    parts, whole = copy.deepcopy(start), copy.deepcopy(start)
    method, reference = vanilla(parts, **options), vanilla(whole, **options)
    group = Accumulation(method, parts, 2, len(halves))
    for number, (images, labels) in enumerate(halves):
        group.take(number, images, labels)
    for pair in (halves[:2], halves[2:4], halves[4:]):
        reference(*(torch.cat(column) for column in zip(*pair, strict=True)))
    for found, expected in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert method.rows == reference.rows == 20


def test_groups_of_an_epoch() -> None:
    group = Accumulation(vanilla(model := network()), model, 3, 7)
    assert group.steps == 3
    assert [one for one in range(7) if group.begins(one)] == [0, 3, 6]
    assert [one for one in range(7) if group.ends(one)] == [2, 5, 6]
    assert [one for one in range(8) if group.whole(one)] == [0, 3, 6, 7]
    assert [group.steps_within(done) for done in (0, 3, 6, 7)] == [0, 1, 2, 3]


def test_the_learning_rate_counts_optimiser_steps(run: Call, tmp_path: Path) -> None:
    """5 batches of 8 images an epoch are 3 steps."""
    out = tmp_path / "run"
    run(out, "--accumulate", "2", "--batch-size", "8", "--corruptions", "none")
    lr = learning_rate("onecycle", peak=0.1, steps=9, steps_per_epoch=3)
    assert [row["step"] for row in rows(out)] == [3, 6, 9]
    assert [row["lr"] for row in rows(out)] == [lr(2), lr(5), lr(8)]


@pytest.mark.parametrize("name", ["entprop", "entprop_pipelined", "free_at"])
def test_a_method_accumulates_or_says_why_not(name: str, run: Call, tmp_path: Path) -> None:
    words = ["--method", name, "--accumulate", "2", "--epochs", "1", "--corruptions", "none"]
    if name == "free_at":
        assert "--accumulate=2: method 'free_at'" in run(tmp_path / "run", *words, code=2)
        assert not (tmp_path / "run").exists()
    else:
        run(tmp_path / "run", *words)


def test_a_number_is_the_run_s_and_a_word_is_entprop_s() -> None:
    more = [*run_flags(), *method_flags()]
    words = "--accumulate 4 --accumulate all".split()
    _, given = parse(train._Flags, words, prog="x", description="Try.", more=more)
    assert given == {"accumulate_batches": 4, "accumulate": "all"}
    words = ["--accumulate=3"]
    assert parse(train._Flags, words, prog="x", description="Try.", more=more)[1] == {
        "accumulate_batches": 3
    }
    config = resolve("digits", **given)
    assert (config.accumulate_batches, config.options["accumulate"]) == (4, "all")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_label_smoothing(name: str) -> None:
    assert "label_smoothing" in settable(name)

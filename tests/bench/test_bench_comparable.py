"""No table compares rows of two machines, or of two versions: `bench.rows.comparable`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import collect, report, rows
from bench.corruptions import table as corruptions_table
from bench.roofline import measured
from bench.roofline.cards import CARDS
from bench.roofline.steps import ENTPROP
from bench.step import picture
from bench.step import table as step_table
from bench.step.targets import verdicts
from tests.bench.conftest import step_rows

HERE = {"machine": "NVIDIA H100 80GB HBM3", "versions": "torch 2.11", "git": "abc"}
OTHERS = ({"machine": "NVIDIA H100 PCIe"}, {"versions": "torch 2.12"})
SIZE = {"arch": "wrn28_10", "batch": 128, "pixels": 32}
Kept = dict[str, list[rows.Row]]

# Parts of pages that compare rows, by the name of these. Recipes are compared with nothing, and the
# ratios of fused steps and of augmentations are within a row.
PARTS = {name: name for name in collect.TABLES if name in report.PARTS} | {
    **{"kernels": "ops_cpu", "ops_cpu": "ops_cpu"},
    **{"step_cpu": "step_cpu", "step_cpu_summary": "step_cpu", "step_cuda_summary": "step_cuda"},
    corruptions_table.PART: corruptions_table.NAME,
}
# What is handed rows of steps.
STEPS: dict[str, Callable[[list[rows.Row]], object]] = {
    "headline": step_table.headline,
    "groups": lambda found: list(step_table.groups(found)),
    "verdicts": lambda found: verdicts("cuda", found),
}


def test_rows_of_one_machine_are_compared_whatever_their_commit_and_clocks() -> None:
    found = [HERE, HERE | {"git": "def"}, HERE | {"clocks": "SM 5 MHz"}]
    assert rows.comparable(iter(found)) == found
    assert rows.comparable([{"seconds": 1}] * 2) == [{"seconds": 1}] * 2  # before they are kept
    assert rows.comparable([]) == []


@pytest.mark.parametrize("other", OTHERS)
def test_those_of_two_are_refused_and_both_are_named(other: dict[str, str]) -> None:
    with pytest.raises(SystemExit) as refused:
        rows.comparable([HERE, HERE | other])
    assert all(one in str(refused.value) for one in (*HERE.values(), *other.values())[:2])
    assert "2 machines or versions" in str(refused.value)


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_page_refuses_them(part: str, other: dict[str, str], kept: Kept) -> None:
    kept[PARTS[part]] = [HERE, HERE | other]
    refused(lambda: report.PARTS[part].text(Path("docs/x.md")))


@pytest.mark.parametrize("what", STEPS)
def test_steps_of_another_card_are_no_base(what: str) -> None:
    found = [row | HERE for row in step_rows("cuda")]
    STEPS[what](found)
    refused(lambda: STEPS[what]([*found, found[0] | OTHERS[0]]))


def test_a_picture_refuses_them(kept: Kept, tmp_path: Path) -> None:
    kept["step_cuda"] = [row | HERE for row in step_rows("cuda")]
    kept["step_cuda"][-1] |= OTHERS[0]
    refused(lambda: picture.draw("cuda", tmp_path / "x.png"))


def test_cards_of_one_name_are_told_apart(kept: Kept) -> None:
    row = SIZE | HERE | {"k": 0.2, "n": 1, "contender": ENTPROP.eager, "seconds": 1.0}
    a100 = row | {"machine": "NVIDIA A100-SXM4-80GB", "seconds": 2.0}
    kept["step_cuda"] = [row, a100]  # each is held against its own bound
    for card, seconds in (("H100", 1.0), ("A100", 2.0)):
        found = measured.measured(SIZE, ENTPROP, CARDS[card], captured=False)
        assert found is not None and found["seconds"] == seconds
    kept["step_cuda"].append(row | OTHERS[0])
    refused(lambda: measured.measured(SIZE, ENTPROP, CARDS["H100"], captured=False))


def refused(call: Callable[[], object]) -> None:
    with pytest.raises(SystemExit, match="which no table compares"):
        call()

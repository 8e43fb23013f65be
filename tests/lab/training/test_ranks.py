"""What the processes of a job do between steps: statistics that count, wishes that all hear of."""

from __future__ import annotations

import functools
import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from entprop_fast.lab import job
from entprop_fast.lab.data.loader import DeviceLoader
from entprop_fast.lab.job import Job, Pulse
from entprop_fast.lab.training import ranks as of_ranks
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.fit import fit
from tests.processes import WORLD, in_two_processes

Stats = Literal["broadcast", "average", "rank"]
STATS: tuple[Stats, ...] = get_args(Stats)
STEPS = 200
WISHED_AT = 70  # by rank 1 alone, from then on
CONFIG = Config(
    arch="wrn10_0.5", dataset="digits", method="vanilla", epochs=1, batch_size=8, lr=0.1
)


def run_rank(rank: int, held: Path) -> dict[str, Any]:
    with job.joined(Job(rank, WORLD, rank)):
        return {
            **{name: statistics(name, rank) for name in STATS},
            "asked": asked(rank),
            "refused": refused(held),
            "seeds": [
                of_ranks.seed_of(5, replace(CONFIG, options={"ranks": one}))
                for one in ("independent", "exact")
            ],
        }


def statistics(norm_stats: Stats, rank: int) -> dict[str, torch.Tensor]:
    """A norm's statistics within an evaluation and after it, and after a save has settled them."""
    config, norm = replace(CONFIG, norm_stats=norm_stats), nn.BatchNorm1d(3).double()
    assert norm.running_mean is not None and norm.num_batches_tracked is not None
    norm.running_mean.fill_(1.0 + 4 * rank)
    norm.num_batches_tracked.fill_(7)
    with of_ranks.same_statistics([norm], config):
        within = norm.running_mean.clone()
    after = norm.running_mean.clone()
    norm.running_mean.fill_(1.0 + 4 * rank)
    of_ranks.settle_statistics([norm], config)
    settled = norm.running_mean.clone()
    return {"within": within, "after": after, "settled": settled, "n": norm.num_batches_tracked}


def refused(held: Path) -> list[str]:
    """What `fit` says of a folder that holds a run, and of a loader that both read alike."""
    rows, said = TensorDataset(torch.rand(8, 3, 4, 4), torch.arange(8) % 2), []
    for sampler in (None, DistributedSampler(rows)):
        loader = DataLoader(rows, batch_size=4, sampler=sampler)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            with pytest.raises(ValueError) as caught:
                fit(nn.Conv2d(3, 2, 4), loader, epochs=1, out=held, verbose=False)
        said += [str(caught.value), *(str(one.message) for one in seen)]
    return said


def asked(rank: int) -> list[tuple[int, float]]:
    """After which steps somebody asked, and what was told."""
    pulse, found = Pulse(), []
    for step in range(STEPS):
        told = pulse.turn(float(rank == 1 and step >= WISHED_AT))
        if told is not None:
            found.append((step, told[0]))
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    held = tmp_path_factory.mktemp("held")
    (held / "config.toml").write_text("")
    return in_two_processes(
        functools.partial(run_rank, held=held), tmp_path_factory.mktemp("ranks")
    )


# Of both ranks, whose own statistics are 1 and 5.
EXPECTED = {
    "broadcast": {"within": (1, 1), "after": (1, 1), "settled": (1, 5)},  # the step sent rank 0's
    "average": {"within": (3, 3), "after": (3, 3), "settled": (3, 3)},
    "rank": {"within": (1, 1), "after": (1, 5), "settled": (1, 5)},
}


@pytest.mark.parametrize("norm_stats", STATS)
def test_whose_statistics_count(norm_stats: str, found: list[dict[str, Any]]) -> None:
    for rank, of_rank in enumerate(found):
        for when, values in EXPECTED[norm_stats].items():
            assert of_rank[norm_stats][when].tolist() == [values[rank]] * 3, when
        assert of_rank[norm_stats]["n"] == 7


def test_fit_refuses_in_all_processes(found: list[dict[str, Any]]) -> None:
    for rank, of_rank in enumerate(found):
        first, alike, other = of_rank["refused"]  # no warning with the other sampler
        assert first == other and "already holds a run" in first and "resume=True" in first
        assert first.startswith("rank 0: ") == (rank != 0)
        assert "DistributedSampler" in alike


def test_all_processes_ask_after_the_same_steps(found: list[dict[str, Any]]) -> None:
    first, other = (of_rank["asked"] for of_rank in found)
    assert first == other and first[0][0] == 0
    assert len(first) < STEPS  # not after each
    gaps = [later - earlier for (earlier, _), (later, _) in itertools.pairwise(first)]
    assert max(gaps) <= 64
    assert all(told == (step >= WISHED_AT) for step, told in first)
    assert any(told for _, told in first)


def test_a_process_alone_asks_itself_at_every_step() -> None:
    pulse = Pulse()
    assert [pulse.turn(wish, 0) for wish in (0, 1)] == [[0, 0], [1, 0]]


def test_draws_are_each_ones_own_unless_ranks_are_exact(found: list[dict[str, Any]]) -> None:
    first, other = (of_rank["seeds"] for of_rank in found)
    assert first[0] == first[1] == other[1] == 5
    assert other[0] != 5


def test_batches_have_two_rows_for_each_process() -> None:
    def check(config: Config, size: int, batch_size: int) -> None:
        images, labels = torch.zeros(size, 1, 2, 2), torch.zeros(size, dtype=torch.long)
        options = {"seed": 0, "drop_last": False, "device": "cpu", "rank": 0, "world": 2}
        of_ranks.check_batches(config, DeviceLoader(images, labels, batch_size, **options))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"^batch_size=3: "):
        check(replace(CONFIG, batch_size=3), 30, 3)
    with pytest.raises(ValueError, match=r"^drop_last=False: "):
        check(CONFIG, 11, 8)
    check(CONFIG, 12, 8)
    check(replace(CONFIG, options={"ranks": "exact"}), 11, 8)

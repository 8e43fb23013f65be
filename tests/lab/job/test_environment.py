"""Which process of a job this is, from torchrun's variables or srun's."""

from __future__ import annotations

import pytest

from entprop_fast.lab.job.environment import Place, first_host, place_of

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-05,9],login",
    "SLURM_JOB_ID": "1234567",
    "SLURM_STEP_ID": "2",
}


def test_torchrun() -> None:
    place = place_of(TORCHRUN)
    assert place == Place(3, 4, 1, "node0", 29500)
    assert place.variables == TORCHRUN
    assert place_of(SRUN | TORCHRUN) == place  # torchrun within a Slurm job


def test_srun() -> None:
    assert place_of(SRUN) == Place(3, 4, 1, "gpu03", 20000 + 1234569 % 20000)
    assert place_of(SRUN | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "9"}) == place_of(SRUN)
    named = SRUN | {"MASTER_ADDR": "other", "MASTER_PORT": "5000"}
    assert place_of(named) == Place(3, 4, 1, "other", 5000)


@pytest.mark.parametrize(
    "alone",
    [
        {},
        {"WORLD_SIZE": "1", "RANK": "0"},
        SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
        # The shell of salloc, a step of one task in an allocation for four.
        SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        # A batch script before its first srun.
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"},
    ],
)
def test_a_process_of_its_own(alone: dict[str, str]) -> None:
    assert place_of(alone) is None


@pytest.mark.parametrize("missing", TORCHRUN)
def test_what_is_missing_is_named(missing: str) -> None:
    left = {name: value for name, value in TORCHRUN.items() if name != missing}
    with pytest.raises(ValueError, match=missing):
        place_of(left)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("RANK", "4"), ("RANK", "-1"), ("RANK", "x"), ("WORLD_SIZE", "0"), ("LOCAL_RANK", "9")),
        *(("MASTER_PORT", "0"), ("MASTER_PORT", "99999"), ("MASTER_ADDR", "")),
    ],
)
def test_what_is_not_valid_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=name):
        place_of(TORCHRUN | {name: value})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        *(("node7", "node7"), ("a,b", "a"), ("n[1-3]", "n1"), ("n[007,9]", "n007")),
        *(("rack-2-n[12-14]-ib,x", "rack-2-n12-ib"), ("10.0.0.[1-2]", "10.0.0.1")),
    ],
)
def test_the_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


@pytest.mark.parametrize("nodes", ["", "[1-2", ",a"])
def test_no_list_of_hosts(nodes: str) -> None:
    with pytest.raises(ValueError, match="SLURM_STEP_NODELIST"):
        first_host(nodes)

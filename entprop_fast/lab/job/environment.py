"""Read from the environment which process of a job this is: torchrun's words, or those of srun."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_FIRST_PORT, _PORTS = 20000, 20000  # where a Slurm job meets, by its number


@dataclass(frozen=True)
class Place:
    """Say which process of a job this is, and where the processes meet.

    Attributes:
        rank: number of this process, from 0.
        world: processes of the job.
        local_rank: number of this process on its machine.
        address: of the machine where they meet.
        port: there.
    """

    rank: int
    world: int
    local_rank: int
    address: str
    port: int

    @property
    def variables(self) -> dict[str, str]:
        """The same in torchrun's words, for torch."""
        numbers = (self.rank, self.world, self.local_rank, self.address, self.port)
        return dict(zip(_TORCHRUN, map(str, numbers), strict=True))


def place_of(environ: Mapping[str, str]) -> Place | None:
    """Return this process's place in its job; None where it is a process of its own.

    Torchrun's variables count before those of Slurm's `srun`, which starts one task a process.
    Where a batch script runs without `srun`, it is one process.

    Raises:
        ValueError: a variable is missing or not valid; the message names it.
    """
    if "WORLD_SIZE" in environ or "RANK" in environ:
        return _of_torchrun(environ)
    if "SLURM_STEP_NODELIST" in environ and "SLURM_PROCID" in environ:
        return _of_slurm(environ)
    return None


def _of_torchrun(environ: Mapping[str, str]) -> Place | None:
    if (world := _number(environ, "WORLD_SIZE", "torchrun's", low=1)) == 1:
        return None
    rank = _number(environ, "RANK", "torchrun's", high=world - 1)
    return Place(
        rank,
        world,
        _number(environ, "LOCAL_RANK", "torchrun's", high=world - 1),
        _text(environ, "MASTER_ADDR", "torchrun's"),
        _number(environ, "MASTER_PORT", "torchrun's", low=1, high=65535),
    )


def _of_slurm(environ: Mapping[str, str]) -> Place | None:
    # Of the step: SLURM_NTASKS is the allocation's in the shell that `salloc` starts as a step.
    name = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environ else "SLURM_NTASKS"
    if (world := _number(environ, name, "srun's", low=1)) == 1:
        return None
    rank = _number(environ, "SLURM_PROCID", "srun's", high=world - 1)
    local = _number(environ, "SLURM_LOCALID", "srun's", high=world - 1)
    if "MASTER_ADDR" in environ:
        address = _text(environ, "MASTER_ADDR", "srun's")
    else:
        address = first_host(_text(environ, "SLURM_STEP_NODELIST", "srun's"))
    if "MASTER_PORT" in environ:
        port = _number(environ, "MASTER_PORT", "srun's", low=1, high=65535)
    else:
        job = _number(environ, "SLURM_JOB_ID", "srun's")
        step = environ.get("SLURM_STEP_ID", "0")
        port = _FIRST_PORT + (job + (int(step) if step.isdecimal() else 0)) % _PORTS
    return Place(rank, world, local, address, port)


def first_host(nodes: str) -> str:
    """Return the first host of Slurm's list, such as ``node[03-05,9],login``.

    Raises:
        ValueError: it is no such list.
    """
    found = re.match(r"([^,\[\]\s]*)(?:\[([^,\-\]]+)[^\]]*\]([^,\[\]\s]*))?(?=,|$)", nodes)
    if found is None or not found[0]:
        raise ValueError(f"SLURM_STEP_NODELIST={nodes}: expected a list of hosts, as srun writes")
    return "".join(part or "" for part in found.groups())


def _text(environ: Mapping[str, str], name: str, whose: str) -> str:
    if not environ.get(name):
        raise ValueError(
            f"{name} is not set, and {whose} other variables are: start the command with torchrun "
            "or srun, which set them all, or clear RANK and WORLD_SIZE"
        )
    return environ[name]


def _number(
    environ: Mapping[str, str], name: str, whose: str, *, low: int = 0, high: int | None = None
) -> int:
    text = _text(environ, name, whose)
    wanted = f"{low} or more" if high is None else f"{low} to {high}"
    if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
        raise ValueError(f"{name}={text}: expected a whole number, {wanted}")
    return int(text)

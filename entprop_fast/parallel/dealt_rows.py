"""Deal the rows of one batch out over the processes, and bring them together again."""

import abc
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from entprop_fast.parallel.rows import all_gather, gather_rows, own_share


class RowsOfAll(abc.ABC):
    """Rows of which each process holds some; a process alone holds all, and exchanges nothing."""

    @property
    @abc.abstractmethod
    def alone(self) -> bool:
        """Return whether this process holds all rows."""

    @abc.abstractmethod
    def gather(self, rows: Tensor) -> Tensor:
        """Gather the rows [held, ...] of all processes, in the order of their numbers."""

    @abc.abstractmethod
    def share(self, ranking: Tensor) -> Tensor:
        """Return this process's part of a ranking that all processes know, dealt out in turns."""

    @abc.abstractmethod
    def _places(self, ranking: Tensor) -> Tensor:
        """Return where the rows of these numbers lie here; outside of [0, held) if elsewhere."""

    def bring(self, ranking: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        """Bring rows to the processes that a ranking deals them out to.

        Args:
            ranking: numbers of rows, [m] in all processes alike.
            rows: tensors [held, ...] of this process's rows.

        Returns:
            Of each tensor the rows of this process's share, wherever they lay.
        """
        brought = []
        places = self._places(ranking)
        for some in rows:
            # One process has each row, the others add 0; no host learns which.
            here = (places >= 0) & (places < len(some))
            found = some.new_zeros((len(ranking), *some.shape[1:]))
            if len(some):
                at = torch.where(here, places, 0)
                here = here.view(-1, *[1] * (some.ndim - 1))
                found = torch.where(here, some[at], found)
            brought.append(found)
        return [self.share(found) for found in _sums(brought)]


@dataclass(frozen=True)
class DealtRows(RowsOfAll):
    """Rows dealt out one at a time: number j lies on the process whose turn it is.

    Attributes:
        total: rows of all processes.
        world: processes.
        turn: number of this process's first row; below `world`, but perhaps not below `total`.
    """

    total: int
    world: int = 1
    turn: int = 0

    @property
    def alone(self) -> bool:
        """Return whether this process holds all rows."""
        return self.world == 1

    @property
    def held(self) -> int:
        """Return how many rows this process holds."""
        return len(range(self.turn, self.total, self.world))

    def first(self, total: int) -> "DealtRows":
        """Return that many rows, dealt out as these are."""
        return replace(self, total=total)

    def after(self, number: int) -> "DealtRows":
        """Return these rows without the first ones, so many; each stays where it is."""
        turn = (self.turn - number) % self.world
        return replace(self, total=self.total - number, turn=turn)

    def share(self, ranking: Tensor) -> Tensor:
        """Return this process's part of what all processes know, [total, ...] -> [held, ...]."""
        return ranking if self.alone else ranking[self.turn :: self.world]

    def numbers(self, places: Tensor) -> Tensor:
        """Return the numbers of rows that lie in these places of this process."""
        return places if self.alone else places * self.world + self.turn

    def gather(self, rows: Tensor) -> Tensor:
        """Gather the rows of all processes, in the order of their numbers: [total, ...]."""
        if self.alone:
            return rows
        most = -(-self.total // self.world)
        if len(rows) < most:
            rows = torch.cat((rows, rows.new_zeros((most - len(rows), *rows.shape[1:]))))
        turns = all_gather(rows).view(self.world, *rows.shape)
        if shift := (self.turn - dist.get_rank()) % self.world:
            turns = turns.roll(shift, 0)
        return turns.transpose(0, 1).flatten(0, 1)[: self.total]

    def gather_with_gradient(self, rows: Tensor) -> Tensor:
        """Gather as `gather` does; gradients go back to the process of each row, added up."""
        if self.alone:
            return rows
        gathered: Tensor = _Gathered.apply(rows, self)  # type: ignore[no-untyped-call]
        return gathered

    def mean(self, of_rows: Tensor) -> Tensor:
        """Return this process's share in the mean over all rows: its own sum by their number."""
        return of_rows.mean() if self.alone else of_rows.sum() / self.total

    def mean_of_all(self, of_rows: Tensor) -> Tensor:
        """Return the mean over all rows, in every process."""
        mean = self.mean(of_rows)
        if not self.alone:
            dist.all_reduce(mean)
        return mean

    def _places(self, ranking: Tensor) -> Tensor:
        return torch.where(ranking % self.world == self.turn, ranking // self.world, -1)


@dataclass(frozen=True)
class StackedRows(RowsOfAll):
    """Rows of each process's own batch, one batch after the other in the order of ranks.

    Attributes:
        held_by: how many rows each process has.
        dealt: how many entries of a ranking each gets.
    """

    held_by: tuple[int, ...]
    dealt: tuple[int, ...]

    @property
    def alone(self) -> bool:
        """Return whether this process holds all rows."""
        return len(self.held_by) == 1

    def gather(self, rows: Tensor) -> Tensor:
        """Gather the rows of all processes, in the order of ranks."""
        return gather_rows(rows, self.held_by)

    def share(self, ranking: Tensor) -> Tensor:
        """Return this process's part of a ranking; who has its number is passed over."""
        return own_share(ranking, self.dealt)

    def _places(self, ranking: Tensor) -> Tensor:
        return ranking - sum(self.held_by[: dist.get_rank()])


class _Gathered(torch.autograd.Function):
    """Gather rows; each process's loss may depend on those of all."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, dealt: DealtRows) -> Tensor:
        ctx.dealt = dealt
        return dealt.gather(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return ctx.dealt.share(total), None


def _sums(tensors: list[Tensor]) -> list[Tensor]:
    """Add up each tensor over all processes, in one collective for each dtype."""
    alike: defaultdict[torch.dtype, list[int]] = defaultdict(list)
    for place, tensor in enumerate(tensors):
        alike[tensor.dtype].append(place)
    summed = list(tensors)
    for places in alike.values():
        flat = torch.cat([tensors[place].reshape(-1) for place in places])
        dist.all_reduce(flat)
        parts = flat.split([tensors[place].numel() for place in places])
        for place, part in zip(places, parts, strict=True):
            summed[place] = part.view(tensors[place].shape)
    return summed

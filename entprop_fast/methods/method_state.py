"""Save a method's state, and deal it out anew for another number of processes."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from entprop_fast.methods.common_options import CommonOptions

State = dict[str, Any]


class MethodState:
    """Hold what `Method.state_dict` gives, and how the states of several processes are joined.

    Each process has a state of its own. Joined, they are the state of one process on the batch of
    all, of which row i lies on process ``i % world``: with ``ranks="exact"`` as if it had trained
    alone. Both functions compute on the host, with tensors of any device, and change no state.
    """

    rows: int
    options: CommonOptions
    # What holds a row for each row of a batch, or for each that waits.
    _of_rows: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> State:
        """Return all state beside model and optimizer that a resumed run needs, of this process."""
        o = self.options
        generator = None if o.generator is None else o.generator.get_state()
        learned = {} if o.criterion is None else o.criterion.state_dict()
        criterion = {name: value.clone() for name, value in learned.items()}
        return {"rows": self.rows, "generator": generator, "criterion": criterion}

    def load_state_dict(self, state: State) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: the state has a generator and this method has none, or the reverse.
        """
        if (state["generator"] is None) != ((o := self.options).generator is None):
            raise ValueError("generator: the state and this method must both have one, or neither")
        self.rows = state["rows"]
        if o.criterion is not None:
            o.criterion.load_state_dict(state["criterion"])
        if o.generator is not None:
            o.generator.set_state(state["generator"])

    @classmethod
    def gathered_state(cls, states: Sequence[State]) -> State:
        """Join the states of all processes, in the order of ranks, to that of one.

        Returns:
            A state of `state_dict`, with ``"generators"``, those of all processes. Its own
            generator is theirs where all are alike, as with ``ranks="exact"``, and else None. The
            criterion is that of process 0.

        Raises:
            ValueError: there is no state, or rows of different shapes cannot be joined.
        """
        if not states:
            raise ValueError("states: expected that of each process, got none")
        drawn = [state["generator"] for state in states]
        alike = all(_same(one, drawn[0]) for one in drawn)
        joined = dict(states[0])
        joined["rows"] = sum(state["rows"] for state in states)
        joined["generator"] = drawn[0] if alike else None
        joined["generators"] = drawn
        for name in cls._of_rows:
            joined[name] = join(name, [state[name] for state in states])
        return joined

    @classmethod
    def dealt_state(cls, state: State, rank: int, world: int) -> State:
        """Deal the state of one process out, for the process `rank` of `world`.

        The generator is that of the same rank, where as many processes drew from their own, or the
        one of all. It is None where each of another number of processes drew from its own: seed
        new ones, apart, and put each one's ``get_state()`` in its place before loading.

        Args:
            state: of `gathered_state`, or of the `state_dict` of one process.
            rank: of the process that loads the result.
            world: how many processes there will be.

        Raises:
            ValueError: `rank` is not one of `world` processes.
        """
        if not 0 <= rank < world:
            raise ValueError(f"rank={rank}: expected one of world={world} processes, from 0")
        dealt = dict(state)
        drawn = dealt.pop("generators", [state["generator"]])
        if len(drawn) == world:
            dealt["generator"] = drawn[rank]
        dealt["rows"] = len(range(rank, state["rows"], world))
        for name in cls._of_rows:
            dealt[name] = deal_out(state[name], rank, world)
        return dealt


def join(name: str, parts: Sequence[Any]) -> Any:
    """Put rows of several processes in turns: tensors [rows, ...], or dicts of them, or None.

    Numbers that each process has for all its rows, 0-dim, become one for each row where they
    differ.

    Raises:
        ValueError: they are of different shapes.
    """
    held = [part for part in parts if part is not None]
    if not held:
        return None
    if isinstance(held[0], Tensor):
        return _in_turns(name, held)
    rows = [len(part["labels"]) for part in held]
    joined: State = {}
    for key in held[0]:
        values = [part[key] for part in held]
        if all(value is None for value in values):
            joined[key] = None
        elif any(value is None for value in values):
            raise ValueError(
                f"{name}: rows that were mixed and rows that were not wait in different processes "
                "and cannot be joined: drop them, waiting=0 in each"
            )
        elif values[0].ndim == 0 and all(torch.equal(value, values[0]) for value in values):
            joined[key] = values[0]
        else:
            pairs = zip(values, rows, strict=True)
            full = [v if v.ndim else v.expand(count) for v, count in pairs]
            joined[key] = _in_turns(f"{name}.{key}", full)
    return joined


def deal_out(rows: Any, rank: int, world: int) -> Any:
    """Return the rows that are dealt out to one of several processes."""
    if isinstance(rows, dict):
        return {key: deal_out(value, rank, world) for key, value in rows.items()}
    if rows is None or rows.ndim == 0:
        return rows
    return rows[rank::world].clone()


def _in_turns(name: str, parts: Sequence[Tensor]) -> Tensor:
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if len(shapes) > 1:
        shown = ", ".join(map(str, shapes))
        raise ValueError(f"{name}: the processes hold rows of shapes {shown}, expected one")
    order = sorted((place, rank) for rank, part in enumerate(parts) for place in range(len(part)))
    first = [0]
    for part in parts:
        first.append(first[-1] + len(part))
    places = torch.tensor([first[rank] + place for place, rank in order], dtype=torch.int64)
    return torch.cat(list(parts))[places.to(parts[0].device)]


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return torch.equal(one, other)

"""Let the processes of a step agree on the host before they exchange tensors.

A process that never enters a collective, or enters it with another shape, leaves the others waiting
for ever or ends one of them with an abort. So every exchange is agreed upon first: a process whose
batch is refused says so there, and all of them raise an error in place of the exchange.
"""

import contextlib
import weakref
import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed as dist

from entprop_fast.parallel.rows import world_size

_OWN = 4  # numbers that a process tells the others beside what has to be the same
_GOES_ON, _FAILED, _LOST = 1, 2, 3
_host_groups: "weakref.WeakKeyDictionary[Any, Any]" = weakref.WeakKeyDictionary()


class Disagreement(ValueError):
    """The processes are not about to do the same.

    Attributes:
        what: of each rank, what it is about to do.
        of_ranks: of each rank, what should be the same everywhere.
    """

    def __init__(self, what: list[str], of_ranks: list[object]) -> None:
        self.what, self.of_ranks = what, of_ranks
        shown = what if len(set(what)) > 1 else _differing(of_ranks)
        each = ", ".join(f"rank {rank} has {one}" for rank, one in enumerate(shown))
        super().__init__(
            f"the processes disagree at {what[0]}: {each}; give all of them the same method, "
            "options and kind of images"
        )


class Agreement:
    """One method's part in what its processes agree upon; a process alone agrees with itself.

    Attributes:
        told: whether the call ends because all processes have agreed that it does.
        lost: whether one of them left an exchange half done, so that no other can begin.
    """

    def __init__(self) -> None:
        self._left = 0  # agreements that the others still expect in this call
        self.told = self.lost = False

    @contextlib.contextmanager
    def call(self, times: int) -> Iterator[None]:
        """Enter a call in which all processes agree so many times; 0: it concerns this one alone.

        What is raised before the last of them is told to the others, who raise an error, too.
        """
        if times == 0 or world_size() == 1:
            yield
            return
        if self.lost:
            raise RuntimeError(
                "the processes cannot go on together: one of them left an exchange half done, see "
                "the first error; end all of them, or make the process group, wrapper and method "
                "anew"
            )
        host_group()  # all processes are here; later one may be elsewhere
        self._left, self.told = times, False
        try:
            yield
        except Exception as error:
            if self._left:
                self._tell(error)
            raise
        finally:
            self._left = 0

    def agree(self, what: str, same: object = (), own: tuple[int, ...] = ()) -> list[list[int]]:
        """Wait until all processes are about to do the same, and return what each has of its own.

        Outside of `call` nobody waits, and the result is what this process has.

        Args:
            what: is about to be exchanged.
            same: has to be the same everywhere; compared and shown by its ``repr``.
            own: at most four numbers of 0 or more.

        Returns:
            `own` of every rank.

        Raises:
            Disagreement: they are about to do something else, or `same` differs.
            ValueError: another process refused its batch.
            RuntimeError: another process failed.
        """
        if not self._left:
            return [list(own)]
        self._left -= 1
        digest = zlib.crc32(repr((what, same)).encode())
        self.lost = True
        told = _post(_GOES_ON, digest, own)
        self.lost = any(row[0] == _LOST for row in told)
        if all(row[:2] == [_GOES_ON, digest] for row in told):
            return [row[2:][: len(own)] for row in told]
        self._left, self.told = 0, True  # all of them raise
        errors, whats, sames = zip(*_explain((None, what, same)), strict=True)
        for rank, error in enumerate(errors):
            if error is not None:
                refused, text = error
                raise (ValueError if refused else RuntimeError)(
                    f"rank {rank} {'refused its batch' if refused else 'failed'}, and no process "
                    f"takes the step: {text}"
                )
        raise Disagreement(list(whats), list(sames))

    def leave(self, error: Exception | None = None) -> None:
        """Agree on nothing more in this call, and tell nobody: the others are elsewhere.

        Args:
            error: one amid an exchange, in which the others wait for this process, so that no
                further step is possible; None: all may have left alike.
        """
        self._left = 0
        if error is not None:
            self.lost = True
            error.add_note(
                "The other processes wait for this one amid a step, and end with an error or a "
                "timeout once it has: no further step is possible"
            )

    def _tell(self, error: Exception) -> None:
        refused = isinstance(error, ValueError | TypeError)
        try:
            _post(_LOST if self.lost else _FAILED, 0, ())
            _explain(((refused, f"{type(error).__name__}: {error}"), "", ()))
        except RuntimeError as lost:  # they have ended already
            self.lost = True
            error.add_note(f"The other processes could not be told: {lost}")


def _post(status: int, digest: int, own: tuple[int, ...]) -> list[list[int]]:
    """Gather what every process posts, by rank: by a sum, since one takes log(world) messages."""
    board = torch.zeros(world_size(), 2 + _OWN, dtype=torch.int64)
    numbers = (status, digest, *own)
    board[dist.get_rank(), : len(numbers)] = torch.tensor(numbers)
    dist.all_reduce(board, group=host_group())
    rows: list[list[int]] = board.tolist()
    return rows


def _differing(of_ranks: list[object]) -> list[object]:
    """Return of each rank what others have otherwise; of dictionaries, these entries alone."""
    entries = [set(map(repr, one.items())) for one in of_ranks if isinstance(one, dict)]
    if len(entries) < len(of_ranks):
        return of_ranks
    common = set.intersection(*entries)
    return [
        {name: value for name, value in one.items() if repr((name, value)) not in common}
        for one in of_ranks
        if isinstance(one, dict)
    ]


def _explain(words: tuple[Any, str, object]) -> list[Any]:
    """Put the words of all processes together; only where something is wrong."""
    said: list[Any] = [None] * world_size()
    dist.all_gather_object(said, words, group=host_group())
    return said


def host_group() -> Any:
    """Choose the processes' own group where it takes CPU tensors, else one of gloo beside it."""
    everyone = dist.group.WORLD
    if everyone not in _host_groups:
        on_host = "cpu:" in dist.get_backend_config()
        try:
            _host_groups[everyone] = None if on_host else dist.new_group(backend="gloo")
        except RuntimeError as error:
            error.add_note(
                "Processes compare their batches over gloo: GLOO_SOCKET_IFNAME names the network "
                "interface"
            )
            raise
    return _host_groups[everyone]

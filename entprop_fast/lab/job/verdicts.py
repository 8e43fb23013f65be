"""Judge from the news of a job's processes whether it has to end, and whose fault that is."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass

SILENT = 20.0  # seconds without a sign of life after which a process counts as gone,
LOST = 4.0  # or where another one has lost its connection to somebody
GRACE = 1.5  # seconds in which the others may fail for the same reason


@dataclass(frozen=True)
class News:
    """Hold what a process tells the others once or twice a second.

    Attributes:
        host: its machine.
        phase: what it is doing.
        still: seconds since it last moved on.
        place: the line of code that it is at, where it has stood still for seconds.
        waiting: it waits for others.
        limit: seconds that it may stand still; 0: any.
        signum: of a signal that asked it to stop; 0: none.
        deaf: it has not come to a place to stop since.
        failure: why it cannot go on; empty: it goes on.
        code: that it ends with then.
        lost: an exchange failed, because another process has gone.
        over: it has done all there was.
        beat: counts up.
    """

    host: str
    phase: str = "starting"
    still: float = 0.0
    place: str = ""
    waiting: bool = False
    limit: float = 0.0
    signum: int = 0
    deaf: bool = False
    failure: str = ""
    code: int = 0
    lost: bool = False
    over: bool = False
    beat: int = 0

    def __str__(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Verdict:
    """Hold how all processes end: the line that is said, and the exit code."""

    text: str
    code: int = 1

    def __str__(self) -> str:
        return json.dumps(asdict(self))


def judge(
    news: Sequence[News], silent: Sequence[float], failed_for: float, own: int
) -> Verdict | None:
    """Return how the job has to end, or None where it goes on.

    Args:
        news: the last ones of each rank.
        silent: seconds since each rank's last sign of life.
        failed_for: seconds since the first failure was told.
        own: the rank that judges; it says its own failure itself.
    """
    return (
        _failed(news, failed_for, own)
        or _gone(news, silent, own)
        or _standing(news, own)
        or _deaf(news)
    )


def _failed(news: Sequence[News], failed_for: float, own: int) -> Verdict | None:
    if failed_for < GRACE or news[own].failure:
        return None
    for rank, one in enumerate(news):
        if one.failure:
            kind = "error" if one.code == 2 else "failed"
            return Verdict(f"{kind}: {name(rank, one)}: {one.failure}", one.code)
    return None


def _gone(news: Sequence[News], silent: Sequence[float], own: int) -> Verdict | None:
    limit = LOST if any(one.lost for one in news) else SILENT
    gone = [
        rank
        for rank, (one, time) in enumerate(zip(news, silent, strict=True))
        if rank != own and not one.over and time > limit
    ]
    if not gone:
        return None
    first = news[gone[0]]
    others = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
    return Verdict(
        f"failed: {name(gone[0], first)}{others} is gone or hangs: no sign of life for "
        f"{silent[gone[0]]:.0f} s, the last one while {first.phase}; killed, out of memory, or "
        "its machine is lost"
    )


def _standing(news: Sequence[News], own: int) -> Verdict | None:
    over = [rank for rank, one in enumerate(news) if one.limit and one.still > one.limit]
    if not over:
        return None
    # Who waits for others is no culprit; of the rest, who has stood longest. It may have stood
    # for less time than the others have waited.
    culprit = min(over, key=lambda rank: (news[rank].waiting, -news[rank].still))
    all_stand = all(rank in over for rank, one in enumerate(news) if not one.over)
    if news[culprit].waiting and not all_stand and news[culprit].still < 2 * news[culprit].limit:
        return None
    one = news[culprit]
    at = f" at {one.place}" if one.place else ""
    return Verdict(
        f"failed: {name(culprit, one)} has stood still for {one.still:.0f} s: {one.phase}{at}; "
        "--stall sets how long a process may"
    )


def _deaf(news: Sequence[News]) -> Verdict | None:
    for rank, one in enumerate(news):
        if one.deaf:
            word = signal.Signals(one.signum).name
            at = f" at {one.place}" if one.place else ""
            return Verdict(
                f"stopped by {word}: {name(rank, one)} did not come to a place to stop: "
                f"{one.phase}{at}; what was saved before is kept",
                128 + one.signum,
            )
    return None


def name(rank: int, one: News) -> str:
    """Name a process by its rank and its machine."""
    return f"rank {rank} on {one.host}"

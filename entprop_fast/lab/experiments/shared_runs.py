"""Deal out runs, some of which other machines do: the same command was started there.

Whoever holds the lease of a run's folder does the run. What a machine has not done itself it reads
from the folders in the end: records, and why runs failed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from entprop_fast.lab import lease_file, stopping
from entprop_fast.lab.experiments.one_run import Mark, Outcome, Record, Run, failure_of, mark_of
from entprop_fast.lab.lease_file import Watch

POLL = 3.0  # seconds between two looks at a run that another machine does


class SharedRuns:
    """Hold runs that are to be done, here or elsewhere.

    Args:
        runs: in the order in which they are begun.
        record_of: reads a finished run's record from its folder; None: it is not finished.
        settled: is told the index of a run that another machine did, and what it came to.
        say: is told what is waited for, and what is taken over.
        outdated: records by folder that do not count: those runs are to be done again.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        record_of: Callable[[Run], Record | None] = lambda run: None,
        settled: Callable[[int, Outcome], None] = lambda index, outcome: None,
        say: Callable[[str], None] = lambda line: None,
        outdated: Mapping[Path, Record] | None = None,
    ) -> None:
        self.runs, self._record_of = runs, record_of
        self._settled, self._say = settled, say
        self._outdated = outdated or {}
        self._left = list(range(len(runs)))
        self._watches = {index: Watch(run.folder) for index, run in enumerate(runs)}
        self._hosts: dict[int, str] = {}  # of runs that are at work elsewhere
        self._next_look: dict[int, float] = {}
        self._told = False
        # Failures of an earlier command are tried again; not those of machines that are at work.
        failures = {index: failure_of(run.folder) for index, run in enumerate(runs)}
        self._earlier = {} if self._others_work() else failures

    def __len__(self) -> int:
        """Count the runs that nobody here has begun, and that are not known to be done."""
        return len(self._left)

    def take(self) -> tuple[int, Mark] | None:
        """Return the next run that is free, with what its folder holds; None: not now."""
        for index in list(self._left):
            if self._next_look.get(index, 0.0) > time.monotonic():
                continue
            if (mark := self._look(index)) is not None:
                self._left.remove(index)
                self._hosts.pop(index, None)
                self._told = False
                return index, mark
        return None

    def put_back(self, index: int, host: str) -> None:
        """Take a run that another machine turned out to hold."""
        self._left.append(index)
        self._left.sort()
        self._found_elsewhere(index, host)

    def wait(self) -> None:
        """Wait a moment for other machines, and say for which."""
        if self._hosts and not self._told:
            self._told = True
            hosts = Counter(self._hosts.values())
            said = ", ".join(f"{count} on {host}" for host, count in sorted(hosts.items()))
            runs = "run is" if len(self._hosts) == 1 else "runs are"
            self._say(f"{len(self._hosts)} {runs} at work elsewhere ({said}): waiting for the rest")
        stopping.check()
        time.sleep(min(0.5, POLL))

    def _look(self, index: int) -> Mark | None:
        """Look at a run: settle it if it is done, return its folder's state if it is free."""
        run, watch = self.runs[index], self._watches[index]
        seen, mark = watch.look(), mark_of(self.runs[index].folder)
        if (outcome := self._done_elsewhere(index)) is not None:
            self._left.remove(index)
            self._hosts.pop(index, None)
            self._settled(index, outcome)
            return None
        if seen is not None and not seen.ended:
            self._found_elsewhere(index, seen.host)
            return None
        if seen is not None and not seen.here:
            if not lease_file.remove(run.folder, seen.content):
                return None
            self._say(f"{run.name}: {seen.host} shows no life any more, taken over")
        elif seen is not None:
            lease_file.remove(run.folder, seen.content)
        return mark

    def _done_elsewhere(self, index: int) -> Outcome | None:
        run = self.runs[index]
        record = self._record_of(run)
        if record is not None and record != self._outdated.get(run.folder):
            return Outcome(record=record, elsewhere=True)
        failure = failure_of(run.folder)
        if failure is not None and failure != self._earlier.get(index):
            return Outcome(error=f"{failure['error']} (on {failure['host']})", elsewhere=True)
        return None

    def _found_elsewhere(self, index: int, host: str) -> None:
        self._hosts[index] = host
        self._next_look[index] = time.monotonic() + POLL

    def _others_work(self) -> bool:
        looks = (lease_file.look(run.folder) for run in self.runs)
        return any(seen is not None and not seen.ended for seen in looks)

"""Whose fault it is that a job has to end, judged from what its processes tell."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from entprop_fast.lab.job.phases import WAITING
from entprop_fast.lab.job.verdicts import GRACE, LOST, SILENT, News, judge

FINE = News("a", phase="a step", still=0.1, limit=60.0)


def verdict(
    *news: News, silent: dict[int, float] | None = None, failed_for: float = 0.0
) -> tuple[str, int] | None:
    quiet = [(silent or {}).get(rank, 0.5) for rank in range(len(news))]
    found = judge(news, quiet, failed_for, 0)
    return None if found is None else (found.text, found.code)


def test_nothing_is_wrong() -> None:
    assert verdict(FINE, FINE) is None
    assert verdict(FINE, replace(FINE, over=True), silent={1: 1000.0}) is None
    still = replace(FINE, still=1e6, limit=0.0)  # preparations may take any time
    assert verdict(FINE, still) is None


@pytest.mark.parametrize(("code", "kind"), [(2, "error"), (1, "failed")])
def test_a_failure_names_the_rank_its_machine_and_the_reason(code: int, kind: str) -> None:
    broken = replace(FINE, host="b", failure="no image", code=code)
    assert verdict(FINE, FINE, broken, failed_for=GRACE) == (
        f"{kind}: rank 2 on b: no image",
        code,
    )
    assert verdict(FINE, broken, failed_for=GRACE / 2) is None  # the others may fail alike
    assert verdict(broken, broken, failed_for=GRACE) is None  # rank 0 says it itself


@pytest.mark.parametrize(("lost", "limit"), [(False, SILENT), (True, LOST)])
def test_who_is_silent_has_gone(lost: bool, limit: float) -> None:
    """Sooner, where somebody's connection broke."""
    news = FINE, FINE, replace(FINE, host="b", phase="reading a batch"), replace(FINE, lost=lost)
    assert verdict(*news, silent={2: limit - 0.1}) is None
    text, code = verdict(*news, silent={2: limit + 0.1}) or ("", 0)
    assert "rank 2 on b" in text and "reading a batch" in text and code == 1
    assert verdict(*news, silent={0: 1e6}) is None  # who judges lives


def test_who_stands_still_is_named_and_not_who_waits_for_it() -> None:
    waiting = replace(FINE, phase=WAITING, still=70.0, waiting=True)
    hung = replace(FINE, host="b", phase="reading a batch", place="readers.py:7", still=61.0)
    text, code = verdict(waiting, waiting, hung) or ("", 0)
    assert "rank 2 on b" in text and "reading a batch" in text and "readers.py:7" in text
    assert code == 1
    assert verdict(waiting, replace(hung, still=59.0)) is None  # it may have hung for less time
    assert verdict(replace(waiting, still=121.0), FINE) is not None  # all that is known
    assert verdict(waiting, waiting, replace(FINE, over=True)) is not None
    assert verdict(FINE, replace(hung, still=59.0)) is None


def test_a_signal_that_nobody_heeds() -> None:
    deaf = replace(FINE, deaf=True, signum=int(signal.SIGTERM))
    text, code = verdict(FINE, deaf) or ("", 0)
    assert "SIGTERM" in text and "rank 1" in text and code == 143

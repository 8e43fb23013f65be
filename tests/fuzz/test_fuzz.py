"""Issue 16's fuzz test; ``FUZZ_CASES=20000 FUZZ_SEED=1 pytest tests/fuzz`` runs more, or others."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from . import harness
from .cases import KINDS, case
from .harness import Sandbox, prepared

CASES = int(os.environ.get("FUZZ_CASES", "1500"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
PARTS = 8  # so that parallel workers share them


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with prepared(tmp_path_factory.mktemp("fuzz") / "sandbox") as made:
        yield made


@pytest.mark.parametrize("part", range(PARTS))
def test_no_input_ends_in_a_traceback(part: int, sandbox: Sandbox) -> None:
    wrong, seen = [], set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(part, CASES, PARTS):
            name, prepare = case(number, SEED, sandbox)
            seen.add(name)
            if (found := sandbox.run(prepare)) is not None:
                wrong.append(f"case {number} ({name}): {found}")
    assert not wrong, "\n".join(wrong)
    assert seen == set(KINDS)


def raises() -> int:
    raise KeyError("a fault of ours")


def writes_beside() -> int:
    Path("stray").write_text("")
    return 0


def says_too_much() -> int:
    print("error: one\nerror: two", file=sys.stderr)
    return 2


def works_for_ever() -> int:
    while True:
        pass


def waits_for_ever() -> int:
    return int(Event().wait())


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (raises, "KeyError"),
        (writes_beside, "stray"),
        (says_too_much, "one line"),
        (lambda: 3, "3"),
        (works_for_ever, "Hangs"),
        (waits_for_ever, "Hangs"),
    ],
)
def test_the_harness_sees_what_is_wrong(
    command: harness.Case, word: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fuzz test that cannot fail tests nothing."""
    monkeypatch.setattr(harness, "LIMIT", 0.2)
    monkeypatch.setattr(harness, "LONGEST", 2.0)
    assert word in (sandbox.run(lambda: command) or "")

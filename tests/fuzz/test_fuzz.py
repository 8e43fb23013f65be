"""Issue 16's fuzz test, 2,000 cases in under a minute; ``python -m tests.fuzz`` runs more."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from . import harness
from .cases import KINDS, case
from .harness import Sandbox, prepared

CASES, PARTS = 2000, 8  # parts, so that parallel workers share them


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
            name, prepare = case(number, 0, sandbox)
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
    import sys

    print("error: one\nerror: two", file=sys.stderr)
    return 2


@pytest.mark.parametrize(
    ("command", "word"),
    [(raises, "KeyError"), (writes_beside, "stray"), (says_too_much, "one line"), (lambda: 3, "3")],
)
def test_the_harness_sees_what_is_wrong(command, word, sandbox: Sandbox) -> None:  # type: ignore[no-untyped-def]
    """Four faults of each kind; a fuzz test that cannot fail tests nothing."""
    assert word in (sandbox.run(lambda: command) or "")


def test_what_hangs_is_seen(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that works for ever, and one that waits for ever."""
    monkeypatch.setattr(harness, "LIMIT", 0.2)
    monkeypatch.setattr(harness, "LONGEST", 2.0)

    def works() -> int:
        while True:
            pass

    def waits() -> int:
        return int(Event().wait())

    assert (sandbox.run(lambda: works) or "").startswith("hangs")
    assert (sandbox.run(lambda: waits) or "").startswith("hangs")

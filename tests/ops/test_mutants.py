"""The mutation check: each broken copy of a kernel is caught by the tests of its op."""

import shutil

import pytest

from tests.ops.mutants import MUTANTS, Ran, compiled, outcomes_of

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")

MODULES = sorted({mutant.module for mutant in MUTANTS.values()})


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Return what the tests say of each mutant, and by a module's name of the intact copy."""
    folder = tmp_path_factory.mktemp("mutants")
    return outcomes_of(compiled(folder), folder)


@pytest.mark.parametrize("module", MODULES)
def test_the_intact_copy_passes(module: str, outcomes: dict[str, Ran]) -> None:
    """Without this the mutants could fail for a reason that has nothing to do with them."""
    assert outcomes[module].code == 0, outcomes[module].said


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, outcomes: dict[str, Ran]) -> None:
    assert outcomes[name].code == 1, outcomes[name].said

"""The mutation check: each broken copy of a kernel is caught by the tests of its op."""

import os
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.ops.mutants import CPU, MUTANTS, Mutant, command, link, run_tests, sources

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")

# A loop changes the table that includes it; norm.h is included by both norm ops.
INCLUDED_BY = {"norm.h": ["dual_batch_norm.cpp", "dual_batch_norm_backward.cpp"]}
Ran = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Ran]]:
    """Return what the tests say of each mutant, and by its tests' names of the intact copy.

    Compiled and run side by side, a process a core: one after another they are seven minutes.
    """
    folder = tmp_path_factory.mktemp("mutants")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        intact = {source.name: folder / f"{source.stem}.o" for source in sources(CPU)}
        built = [
            pool.submit(subprocess.run, command(source, intact[source.name], CPU), check=True)
            for source in sources(CPU)
        ]
        for one in built:
            one.result()
        link([*intact.values()], folder / "intact.so")
        found = {
            f"{module} {tests}": pool.submit(run_tests, folder / "intact.so", module, tests)
            for module, tests in {(m.module, m.tests) for m in MUTANTS.values()}
        }
        for number, (name, mutant) in enumerate(MUTANTS.items()):
            found[name] = pool.submit(_outcome, mutant, intact, folder / str(number))
        return found


def _outcome(mutant: Mutant, intact: dict[str, Path], folder: Path) -> Ran:
    copy = folder / "cpu"
    shutil.copytree(CPU, copy)
    text = (copy / mutant.file).read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file} no longer holds {mutant.old!r} once"
    (copy / mutant.file).write_text(text.replace(mutant.old, mutant.new))
    own = [mutant.file] if mutant.file.endswith(".cpp") else ["kernels_portable.cpp"]
    rebuilt = dict(intact)
    for source in INCLUDED_BY.get(mutant.file, own):
        rebuilt[source] = folder / f"{source}.o"
        subprocess.run(command(copy / source, rebuilt[source], copy), check=True)
    link([*rebuilt.values()], folder / "mutant.so")
    return run_tests(folder / "mutant.so", mutant.module, mutant.tests)


def test_the_intact_copy_passes(outcomes: dict[str, Future[Ran]]) -> None:
    """Without this the mutants could fail for a reason that has nothing to do with them."""
    intact = [future.result() for name, future in outcomes.items() if name not in MUTANTS]
    assert intact
    for result in intact:
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, outcomes: dict[str, Future[Ran]]) -> None:
    result = outcomes[name].result()
    assert result.returncode == 1, result.stdout + result.stderr

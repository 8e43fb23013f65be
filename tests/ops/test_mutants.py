"""The mutation check: each broken copy of a kernel is caught by the tests of its op."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ops.mutants import CPU, MUTANTS, Mutant, command, link, run_tests, sources

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The intact kernels, an object a source."""
    folder = tmp_path_factory.mktemp("intact")
    built = {source.name: folder / f"{source.stem}.o" for source in sources(CPU)}
    for source in sources(CPU):
        subprocess.run(command(source, built[source.name], CPU), check=True)
    return built


def test_the_intact_copy_passes(objects: dict[str, Path], tmp_path: Path) -> None:
    """Without this the mutants could fail for a reason that has nothing to do with them."""
    link([*objects.values()], tmp_path / "intact.so")
    for mutant in {(m.module, m.tests) for m in MUTANTS.values()}:
        result = run_tests(tmp_path / "intact.so", *mutant)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, objects: dict[str, Path], tmp_path: Path) -> None:
    mutant: Mutant = MUTANTS[name]
    copy = tmp_path / "cpu"
    shutil.copytree(CPU, copy)
    text = (copy / mutant.file).read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file} no longer holds {mutant.old!r} once"
    (copy / mutant.file).write_text(text.replace(mutant.old, mutant.new))

    # A loop changes the table that includes it; norm.h is included by both norm ops.
    affected = {"norm.h": ["dual_batch_norm.cpp", "dual_batch_norm_backward.cpp"]}.get(
        mutant.file,
        [mutant.file] if mutant.file.endswith(".cpp") else ["kernels_portable.cpp"],
    )
    rebuilt = dict(objects)
    for source in affected:
        rebuilt[source] = tmp_path / f"{source}.o"
        subprocess.run(command(copy / source, rebuilt[source], copy), check=True)
    link([*rebuilt.values()], tmp_path / "mutant.so")
    result = run_tests(tmp_path / "mutant.so", mutant.module, mutant.tests)
    assert result.returncode == 1, result.stdout + result.stderr

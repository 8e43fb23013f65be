"""The wall between library and laboratory, and the house rules that a program can check."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

from tests.children import printed, run_python

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "entprop_fast"
LONGEST = 300  # lines

# Rooms of the library, and which others each may import. Files directly in entprop_fast/ (build,
# devices, ...) are its foundations: they import each other at most, but for `reference`.
LIBRARY: dict[str, set[str]] = {
    "kernels": set(),
    "ops": {"kernels"},
    "layers": {"ops"},
    "augment": {"layers", "ops"},
    "capture": set(),
    "parallel": {"layers"},
    "models": {"layers", "ops"},
    "reference": {"layers"},
    "methods": {"augment", "capture", "layers", "ops", "parallel", "reference"},
}
# What may stand in a function all the same, by module and by what it imports.
LATE = {
    ("layers.norm_kinds", "entprop_fast.layers.timm_norms"): "timm is an extra, and slow to import",
}


def _modules() -> dict[str, Path]:
    """Every file of the package by its module, without the package's name."""
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE / "kernels").glob("*.py")]
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in files}


MODULES = _modules()
# Commands: `entprop_fast/NAME.py` is a few lines in front of `entprop_fast/lab/cli/NAME`.
DOORS = {name for name in MODULES if (PACKAGE / "lab" / "cli" / f"{name}.py").exists()}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import of one module of the package by another."""
    return grimp.build_graph("entprop_fast", cache_dir=None)


def test_a_room_imports_those_below_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No arrow points up, none runs in a circle: the contracts of pyproject.toml."""
    monkeypatch.chdir(ROOT)
    status = lint_imports(cache_dir=None, no_cache=True)
    assert status == 0, capsys.readouterr().out


def test_rooms_of_the_library_know_few_others(graph: grimp.ImportGraph) -> None:
    """Count the arrows between rooms; a new one is a decision, made in the table above."""
    arrows = Counter(
        (_room(module), _room(other))
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
    )
    print(*(f"{one} -> {other}: {count}" for (one, other), count in sorted(arrows.items())))
    between = {pair for pair in arrows if pair[0] != pair[1] and pair[1] != "foundations"}
    known = {(room, other) for room, others in LIBRARY.items() for other in others}
    above = {(house, room) for house in ("root", "lab", "doors") for room in (*LIBRARY, "lab")}
    assert between <= known | above | {("lab", "root"), ("root", "doors")}


def _room(module: str) -> str:
    name = module.removeprefix("entprop_fast").lstrip(".").partition(".")[0] or "root"
    if name in ("root", "lab") or name in LIBRARY:
        return name
    return "doors" if name in DOORS or name == "__main__" else "foundations"


def test_a_name_belongs_to_one_file() -> None:
    """But for the kernels, which mirror their ops, and a command and the door to it."""
    stems = Counter(
        path.stem
        for name, path in MODULES.items()
        if path.stem not in ("__init__", "__main__")
        and not name.startswith("kernels.")
        and name not in DOORS
    )
    assert [stem for stem, count in stems.items() if count > 1] == []


def test_no_file_is_long() -> None:
    long = {name for name, path in MODULES.items() if len(path.read_text().splitlines()) > LONGEST}
    assert long == set()


def test_imports_within_functions_have_a_reason() -> None:
    late = {
        (name, imported)
        for name, path in MODULES.items()
        for imported in _late_imports(ast.parse(path.read_text()))
    }
    assert late == LATE.keys()


def _late_imports(tree: ast.Module) -> Iterator[str]:
    """Modules of this package that a function imports."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for node in (node for function in functions for node in ast.walk(function)):
        module = getattr(node, "module", None) or ""
        if isinstance(node, ast.ImportFrom) and (node.level or _is_ours(module)):
            names = [f"{module}.{alias.name}" for alias in node.names]
            yield from [n for n in names if n.removeprefix("entprop_fast.") in MODULES] or [module]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_ours(alias.name))


def test_nothing_but_tests_imports_tests() -> None:
    """A benchmark that did would measure with what is made to check it."""
    files = [*ROOT.glob("*.py")]
    for folder in ("entprop_fast", "kernels", "csrc", "bench", "examples"):
        files += (ROOT / folder).rglob("*.py")
    assert len(files) > 200
    found = {
        (str(path.relative_to(ROOT)), module)
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _imported(node)
        if module.partition(".")[0] == "tests"
    }
    assert found == set()


def _imported(node: ast.AST) -> list[str]:
    """Return the modules that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == "entprop_fast"


def test_importing_the_package_loads_nothing_of_the_laboratory() -> None:
    """Nor Triton, nor what only an extra brings: less than 100 ms after torch."""
    code = "import sys, torch; before = set(sys.modules); import entprop_fast; "
    code += "print(*sorted(set(sys.modules) - before))"
    loaded = printed(run_python("-c", code)).split()
    foreign = {name.partition(".")[0] for name in loaded} - {"entprop_fast", "torch"}
    assert foreign == set()
    assert not [name for name in loaded if name.startswith("entprop_fast.lab")]
    assert not [name for name in loaded if name in ("torch._dynamo", "torch._inductor")]
    assert len(loaded) < 125

"""Private names of torch stand in torch_internals.py alone, each with its check.

A benchmark's device that is not there has its own in bench/fake_cuda: the library never sees them,
and tests/fake_cuda runs all of it.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import prune

from entprop_fast import torch_internals as internals
from entprop_fast.torch_internals import MissingInternal
from tests.test_torch_internals import CHECKS

ROOT = Path(__file__).parents[1]
# What torch calls by a private name, and a norm answers.
ANSWERED = {"_load_from_state_dict"}
NAMEDTUPLES = {"_asdict", "_fields", "_replace"}
KEEPERS = (ROOT / "entprop_fast" / "torch_internals.py", ROOT / "bench" / "fake_cuda")
PYTHON = {"_current_frames", "_exit"}  # documented, of sys and os


def test_each_function_has_a_check_and_says_what_it_was_tried_on() -> None:
    functions = {
        name: function
        for name, function in inspect.getmembers(internals, inspect.isfunction)
        if function.__module__ == internals.__name__ and not name.startswith("_")
    }
    assert functions.keys() == CHECKS.keys()
    for name, function in functions.items():
        assert "Tried:" in (function.__doc__ or ""), name
    assert isinstance(torch.ops.aten.relu.default, internals.OpOverload)
    bases = (internals.BatchNormBase, internals.NormBase, internals.ConvBase)
    for cls, base in zip((nn.SyncBatchNorm, nn.InstanceNorm2d, nn.Conv2d), bases, strict=True):
        assert issubclass(cls, base)


def test_a_missing_name_is_named_with_the_release_that_lacks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(torch, "_sample_dirichlet")
    with pytest.raises(MissingInternal, match=r"torch\._sample_dirichlet") as caught:
        internals.draw_dirichlet(torch.ones(2), None)
    assert torch.__version__ in str(caught.value)
    with pytest.raises(MissingInternal, match="_not_there"):
        internals._bind(torch._C, "_not_there")(1)
    with pytest.raises(MissingInternal, match=r"Linear\._modules"):
        layer = nn.Linear(1, 1)
        del layer.__dict__["_modules"]
        internals.children_of(layer)


def test_private_names_of_torch_are_used_nowhere_else() -> None:
    """By attribute, import, string and override, in all that is not a test."""
    sources = [ROOT / "setup.py", ROOT / "conftest.py"]
    for room in ("entprop_fast", "kernels", "csrc", "bench"):
        sources += sorted((ROOT / room).rglob("*.py"))
    trees = {path: ast.parse(path.read_text()) for path in sources}
    own = {name for tree in trees.values() for name in _defined(tree)} | NAMEDTUPLES | PYTHON
    used = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in trees.items()
        if path not in KEEPERS and path.parent not in KEEPERS
        for name in _foreign(tree, own)
    }
    assert not used, "\n".join(sorted(used))


def _foreign(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Names with one leading underscore that are torch's, Triton's or nobody's."""
    held = _held_names() - ANSWERED
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            owner = ast.unparse(node.value).partition(".")[0]
            if owner in ("torch", "dist", "nn", "F", "triton", "tl") or node.attr not in own:
                yield node.attr
            elif node.attr in held:
                yield node.attr
        elif isinstance(node, ast.ClassDef):
            methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            yield from methods & held
        elif isinstance(node, ast.Constant) and node.value in held:
            yield str(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            for name in (f"{module}.{alias.name}".strip(".") for alias in node.names):
                if name.startswith(("torch.", "triton.")):
                    yield from filter(_is_private, name.split("."))


def _is_private(name: str) -> bool:
    return name.startswith("_") and name != "_" and not name.startswith("__")


def _defined(tree: ast.Module) -> Iterator[str]:
    """Names that a file defines or sets."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@functools.cache
def _held_names() -> frozenset[str]:
    """Private attributes of the objects that this package is handed."""
    owners: list[Any] = [nn.BatchNorm2d(1), nn.Parameter(), torch.optim.Adam([torch.ones(1)])]
    owners += [prune.BasePruningMethod, DistributedDataParallel]
    names = {name for owner in owners for name in dir(owner)}
    names.update(DistributedDataParallel.__init__.__code__.co_names)
    return frozenset(filter(_is_private, names))

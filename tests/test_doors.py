"""Check FOUND C4, C8, C16: ways into the package, and what is said where one is closed."""

from __future__ import annotations

import pkgutil
import sys
from pathlib import Path

import pytest

import entprop_fast
from entprop_fast import startup
from entprop_fast.lab.cli import dispatch

from .children import ROOT, printed, run_python

EXTRA = ("matplotlib", "rich", "safetensors", "scipy", "sklearn", "tomli_w", "tyro")


def test_the_readmes_words_work_after_one_import() -> None:
    """FOUND C4: `entprop_fast.models` after `import entprop_fast`, and its neighbours."""
    code = (
        "import entprop_fast; m = entprop_fast.models.create('wrn10_0.5', num_classes=3); "
        "entprop_fast.data.load; entprop_fast.reference.entropy; entprop_fast.ops; "
        "assert 'models' in dir(entprop_fast) and 'create_method' in dir(entprop_fast); "
        "from entprop_fast import studies, metrics; print(type(m).__name__)"
    )
    assert printed(run_python("-c", code)) == "WideResNet\n"


def test_every_module_is_an_attribute_and_no_other_name_is() -> None:
    """FOUND C4."""
    for one in pkgutil.iter_modules(entprop_fast.__path__):
        if one.ispkg and one.name != "kernels":  # imported at the first call of one
            assert getattr(entprop_fast, one.name).__name__ == f"entprop_fast.{one.name}"
    for name in ("modelz", "__main_", "_nothing", "os", "sys.modules"):
        with pytest.raises(AttributeError, match=name):
            getattr(entprop_fast, name)


def test_the_package_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """FOUND C16: `python -m entprop_fast`."""
    lines = printed(run_python("-m", "entprop_fast")).splitlines()
    listed = {line.split()[0].replace("-", "_"): line.split()[1:] for line in lines[1:]}
    assert {"train", "evaluate", "compare", "study", "corrupt", "data"} <= listed.keys()
    assert "python -m entprop_fast COMMAND" in lines[0] and all(
        len(words) > 3 for words in listed.values()
    )
    folder = Path(entprop_fast.__file__).parent
    assert all((folder / f"{name}.py").exists() or (folder / name).is_dir() for name in listed)
    for word, said in {"trian": "nearest: train", "evaluat": "nearest: evaluate"}.items():
        assert dispatch.main([word]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_a_command_without_its_extra(tmp_path: Path) -> None:
    """FOUND C8: one line that says what to install; the package itself imports."""
    (tmp_path / "sitecustomize.py").write_text(f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {EXTRA!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Absent())
""")
    paths = f"{tmp_path}:{ROOT}"
    for command in ("train", "data"):
        ran = run_python("-m", f"entprop_fast.{command}", PYTHONPATH=paths)
        assert ran.returncode == 2
        assert ran.stderr.count("\n") == 1 and ran.stderr.startswith("error: ")
        assert "tyro" in ran.stderr and "pip install 'entprop_fast[train]'" in ran.stderr
    printed(run_python("-c", "import entprop_fast", PYTHONPATH=paths))


def test_from_python_a_missing_library_is_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """FOUND C8: the neighbour; nobody's interpreter ends because of an import."""
    error = ImportError("it needs a library")
    monkeypatch.setattr(sys, "orig_argv", ["python", "mine.py", "-m", "entprop_fast.train"])
    with pytest.raises(ImportError, match="a library"):
        startup.refuse(error)
    for words in (
        "-m entprop_fast.train",
        "-X dev -m entprop_fast train",
        "/venv/bin/entprop train",
    ):
        monkeypatch.setattr(sys, "orig_argv", ["python", *words.split()])
        with pytest.raises(SystemExit) as stop:
            startup.refuse(error)
        assert stop.value.code == 2


def test_a_misspelt_backend() -> None:
    """FOUND C8: ENTPROP_BACKEND."""
    ran = run_python("-m", "entprop_fast.train", ENTPROP_BACKEND="tritn")
    assert ran.returncode == 2
    assert ran.stderr == "error: ENTPROP_BACKEND='tritn': expected one of auto, reference\n"
    assert "ValueError" in run_python("-c", "import entprop_fast", ENTPROP_BACKEND="x").stderr

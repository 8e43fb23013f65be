"""The page docs/deployment.md leads from a run to a script that classifies, as printed."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from entprop_fast.lab.cli import export, predict
from entprop_fast.lab.publish.export_run import FILES, FORMATS
from tests.lab.conftest import Call

PAGE = (Path(__file__).parents[3] / "docs" / "deployment.md").read_text()
RUN = "runs/digits-wrn10_0.5-entprop-0"


def test_commands_and_code_as_printed(
    finished: Path,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(finished, tmp_path / RUN)
    monkeypatch.chdir(tmp_path)
    (digit,) = re.findall(r'^python -c "(.*)"$', PAGE, re.M)
    exec(digit, {})
    first, *_ = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
    commands = [shlex.split(line, comments=True) for line in first.splitlines()]
    asked, exported, script = commands
    assert (asked[2], exported[2]) == ("entprop_fast.predict", "entprop_fast.export")
    said = call(predict, [*asked[3:], "--json"])
    call(export, exported[3:])
    monkeypatch.setattr("sys.argv", script[1:])
    runpy.run_path(script[1], run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    classes = [line.split("%  ")[1] for line in lines]
    assert classes == json.loads(said)["classes"] and len(classes) == 5

    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S):
        exec(code, names)
    assert capsys.readouterr().out.split() == classes[:1]
    assert names["state"].keys() == names["network"].state_dict().keys()
    for folder in ("my-model", "cats-and-dogs"):
        assert {one.name for one in (tmp_path / folder).iterdir()} == {
            *("config.json", "model.safetensors", "README.md")
        }


def test_the_formats_of_the_page() -> None:
    listed = re.findall(r"^\| `(\w[\w-]*)` \| (.*?) \|", PAGE, re.M)
    assert [name for name, _ in listed] == list(FORMATS)
    files = {file for _, cell in listed for file in re.findall(r"`([\w.]+)`", cell)}
    assert files == set(FILES) - {"manifest.json"}

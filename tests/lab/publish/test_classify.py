"""The script beside an ONNX file classifies without torch and this package, and as `predict`."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from entprop_fast.lab.cli import predict
from tests.lab.conftest import Call
from tests.lab.publish.conftest import CLASSES, images_in

# Neither is found, wherever it is installed.
ALONE = """
import runpy, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "entprop_fast"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
script, *images = sys.argv[1:]
for image in images:
    sys.argv = [script, image]
    runpy.run_path(script, run_name="__main__")
    print("--")
assert not {"torch", "entprop_fast"} & set(sys.modules)
"""


def test_it_says_what_predict_says(
    exported: Path, photo_run: Path, photos: Path, call: Call
) -> None:
    images = [str(one) for one in images_in(photos)]
    said = call(predict, [str(photo_run), *images, "--json", "--device", "cpu"])
    expected = [json.loads(line) for line in said.splitlines()]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", ALONE, str(exported / "classify.py"), *images]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=photos)
    assert ran.returncode == 0, ran.stderr
    found = [block.strip().splitlines() for block in ran.stdout.split("--")[:-1]]
    assert len(found) == len(expected) == 5
    for lines, one in zip(found, expected, strict=True):
        cells = [line.strip().split("%  ") for line in lines]
        assert [label for _, label in cells] == one["classes"]
        shares = [float(share) for share, _ in cells]
        assert shares == pytest.approx([100 * share for share in one["probabilities"]], abs=0.051)
    assert {one["classes"][0] for one in expected} <= set(CLASSES)


def test_it_is_short_and_needs_little(exported: Path) -> None:
    tree = ast.parse((exported / "classify.py").read_text())
    assert sum(not isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body[1:]) <= 20
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [one.name for one in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported == {"json", "sys", "pathlib", "numpy", "onnxruntime", "PIL"}


def classify(exported: Path, *names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(exported / "classify.py"), *names]
    return subprocess.run(command, capture_output=True, text=True)


def test_several_images_each_under_its_name(exported: Path, photos: Path) -> None:
    names = [str(one) for one in images_in(photos)[:2]]
    each = "".join(f"{name}\n{classify(exported, name).stdout}" for name in names)
    assert classify(exported, *names).stdout == each
    assert each.count("%") == 2 * len(CLASSES)


@pytest.mark.parametrize(
    ("names", "said"), [((), "no image is named"), (("no.png",), "no such file: no.png")]
)
def test_usage(names: tuple[str, ...], said: str, exported: Path) -> None:
    ran = classify(exported, *names)
    usage = f"{said}; usage: python classify.py IMAGE [IMAGE ...]\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", usage)

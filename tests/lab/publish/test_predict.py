"""``predict`` classifies files and folders as the network does, or says what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import entprop_fast
from entprop_fast.lab.cli import export, predict
from entprop_fast.lab.training.deploy import NetworkSpec, save_deployable
from tests.lab.conftest import Call
from tests.lab.publish.conftest import CLASSES, images_in


def test_json_lines(photo_run: Path, photos: Path, call: Call) -> None:
    """A folder's images at any depth, in an order that does not depend on the batch."""
    network, spec = entprop_fast.load(photo_run)
    said = call(predict, [str(photo_run), str(photos), "--json", "--top", "9"])
    found = {one["file"]: one for one in map(json.loads, said.splitlines())}
    assert set(found) == {str(one) for one in images_in(photos)}
    for file, one in found.items():
        shares = network(spec.preprocessing(file)[None]).softmax(dim=1)[0]
        order = shares.argsort(descending=True)
        assert one["classes"] == [CLASSES[place] for place in order]
        given = torch.tensor(one["probabilities"])
        torch.testing.assert_close(given, shares[order], rtol=1e-4, atol=1e-6)
    words = [str(photo_run), str(photos), "--json", "--top", "9", "--batch-size", "2"]
    again = [json.loads(line)["file"] for line in call(predict, words).splitlines()]
    assert again == list(found)


def test_a_table(exported: Path, photos: Path, call: Call) -> None:
    said = call(predict, [str(exported), str(photos / "wide.jpg"), "--top", "2"])
    assert said.splitlines()[0].split() == ["image", "class", "probability"]
    text = " ".join(said.split())
    assert "wide.jpg" in text and text.count("%") == 2
    assert any(label in text for label in CLASSES)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("notes.txt", "notes.txt"),
        ("wide.jpg notes.txt", "notes.txt"),
        ("missing.png", "missing.png"),
        ("empty", "empty"),
        ("wide.jpg --top 0", "--top"),
        ("wide.jpg --batch-size 0", "--batch-size"),
        ("wide.jpg --device gpu", "device"),
        ("", "RUN IMAGE [IMAGE ...]"),
    ],
)
def test_refusals(
    words: str, named: str, photo_run: Path, photos: Path, call: Call, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    given = [
        str((tmp_path if word == "empty" else photos) / word)
        if word in ("empty", "missing.png") or (photos / word).is_file()
        else word
        for word in words.split()
    ]
    assert named in call(predict, [str(photo_run), *given], 2)


def test_no_run(photos: Path, call: Call) -> None:
    assert "nowhere" in call(predict, ["nowhere", str(photos)], 2)


OWN = """
from torch import nn


def network(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))
"""


def test_a_network_of_one_s_own(
    photo_run: Path, photos: Path, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code runs where the command line names it, never because a file does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "our_code.py").write_text(OWN)
    spec = NetworkSpec("model:our_code:network", 2, 3, class_names=("a", "b"), input_size=(2, 2))
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    save_deployable(tmp_path / "model.safetensors", network, spec)
    words = [str(tmp_path), str(photos / "wide.jpg"), "--json"]
    assert "--model" in call(predict, words, 2) and "our_code" not in sys.modules
    (found,) = map(json.loads, call(predict, [*words, "--model", "our_code:network"]).splitlines())
    expected = (
        network(spec.preprocessing(photos / "wide.jpg")[None]).detach().softmax(dim=1)[0].max()
    )
    assert found["probabilities"][0] == pytest.approx(float(expected), rel=1e-5)
    named = ["--model", "our_code:network"]
    call(export, [str(tmp_path), "--to", "safetensors", *named])
    assert "model" in call(predict, [str(photo_run), str(photos / "wide.jpg"), *named], 2)

"""``predict`` classifies files and folders as the network does, or says what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import entprop_fast
from entprop_fast.lab.cli import predict
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
        ("", "IMAGE"),
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

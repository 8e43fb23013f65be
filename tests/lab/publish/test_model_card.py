"""A model card says what was measured, and of all else that it was not."""

from __future__ import annotations

import builtins
import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from entprop_fast.lab.publish import model_card
from entprop_fast.lab.publish.scores import Scores, read_scores
from entprop_fast.lab.training.deploy import NetworkSpec
from tests.lab.publish.conftest import SUMMARY

SHIFTS: list[Any] = [[1], {"a": 3}, {"a": {}}]
SHIFTS += [{"a": {"accuracy": one}} for one in ("9", math.nan, 101, True)]
BROKEN = [
    "{",
    "[]",
    '{"sa": "91"}',
    '{"epochs": 1.5}',
    *(json.dumps({"shifts": s}) for s in SHIFTS),
]


def parts(card: str) -> tuple[dict[str, Any], str]:
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def rows(body: str) -> dict[str, str]:
    cells = [line.split(" | ") for line in body.splitlines() if line.startswith("| ")]
    return {cell[0].removeprefix("| "): cell[1].removesuffix(" |") for cell in cells}


def test_what_was_measured(photo_run: Path, spec: NetworkSpec) -> None:
    front, body = parts(model_card.model_card(spec, read_scores(photo_run)))
    table = rows(body)
    assert (table["SA"], table["RA"], table["Hscore"]) == ("91.2 %", "70.5 %", "79.5 %")
    assert SUMMARY["corruption_source"] in body and "seed 3" in body
    assert (table["method"], table["epochs"], table["training images"]) == ("entprop", "7", "1,234")
    assert table["accuracy under attack"] == "unmeasured" and "no defence" in body
    assert "Enomoto" in body and r"dog\|x, \<owl>" in body
    (index,) = front["model-index"]
    found = {one["metrics"][0]["name"]: one["metrics"][0]["value"] for one in index["results"]}
    shifts = {"shift another artist": 61.25, "shift a|b": 40.0}
    assert found == {"SA": 91.25, "RA": 70.5, "Hscore": 79.54} | shifts
    assert table["shift another artist"] == "61.2 %" and table[r"shift a\|b"] == "40.0 %"
    assert SUMMARY["corruption_source"] in index["results"][1]["dataset"]["config"]
    assert front["pipeline_tag"] == "image-classification"


def test_what_was_not(spec: NetworkSpec) -> None:
    front, body = parts(model_card.model_card(spec, Scores()))
    table = rows(body)
    assert {table[name] for name in ("SA", "RA", "Hscore")} == {"unmeasured"}
    assert {table[name] for name in ("method", "epochs")} == {"not recorded"}
    assert "model-index" not in front and not any("shift" in name for name in table)
    own = replace(spec, normalize="none", mean=(0.5, 0.25, 0.125), std=(0.2,) * 3)
    card = model_card.model_card(own, Scores())
    assert "that are normalised" in card and "mean `[0.5, 0.25, 0.125]`" in card
    assert "with values in [0, 1]" not in card and "with values in [0, 1]" in body
    clean = Scores(sa=50.0, seed=1)
    front, body = parts(model_card.model_card(spec, clean))
    assert rows(body)["RA"] == "unmeasured" and len(front["model-index"][0]["results"]) == 1


def test_the_front_matter_is_the_same_without_the_hub_s_library(
    photo_run: Path, spec: NetworkSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(spec, arch="timm:resnet18", dataset='folder:"a: b"')
    with_library, body = parts(model_card.model_card(spec, read_scores(photo_run)))
    assert with_library["library_name"] == "timm"
    whole = importlib.util.find_spec
    monkeypatch.setattr(
        model_card,
        "find_spec",
        lambda name: None if name == "huggingface_hub" else whole(name),
    )
    imported = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        assert not name.startswith("huggingface_hub")
        return imported(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    assert parts(model_card.model_card(spec, read_scores(photo_run))) == (with_library, body)


def test_scores_are_those_of_the_network_that_is_loaded(finished: Path, tmp_path: Path) -> None:
    found = read_scores(finished)
    assert found == read_scores(finished / "model.safetensors") and found.sa is not None
    assert read_scores(finished / "checkpoint.pt") == Scores()  # another network, maybe
    assert read_scores(tmp_path) == Scores()
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert read_scores(tmp_path) == Scores()
    summary = tmp_path / "summary.json"
    for broken in BROKEN:
        summary.write_text(broken)
        with pytest.raises(ValueError, match="summary"):
            read_scores(tmp_path)
    summary.write_text(json.dumps({"sa": 91, "ra": None, "new": 1}))
    assert read_scores(tmp_path) == Scores(sa=91.0)

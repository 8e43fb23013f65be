"""bench/zoo: a sample of its networks, what it covers, and how it goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torchvision

from bench import rows
from bench.zoo import run, table
from bench.zoo.builders import Network
from bench.zoo.cases import families, networks
from bench.zoo.check import check
from tests.bench.conftest import WHERE

# The light ones: every kind of norm, and what is done with one (kernels checked by the others).
SAMPLE = """
timm:test_vit
""".split()
BY_NAME = {str(network): network for network in networks()}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_is_right_and_as_its_row_says(name: str) -> None:
    row = check(BY_NAME[name])
    assert table.complaint(row) == ""
    (kept,) = (row for row in rows.read(table.NAME) if row["network"] == name)
    same = ("family", "pixels", "parameters", "norms", "converted", "left", "also", "fused")
    assert {key: row[key] for key in same} == {key: kept[key] for key in same}


def test_every_family_and_every_classifier_is_there() -> None:
    assert list(families()) == sorted(timm.list_modules())
    for family, names in families().items():
        assert names and set(names) <= set(timm.list_models(module=family)), family
    found = [network for network in networks() if network.library == "torchvision"]
    known = torchvision.models.list_models(module=torchvision.models)
    assert sorted(network.name for network in found) == sorted(known)
    assert len(networks()) - len(found) >= 168 and len(BY_NAME) == len(networks())


def test_every_network_has_a_row_and_nearly_all_convert_wholly() -> None:
    found = rows.read(table.NAME)
    assert [row["network"] for row in found] == list(BY_NAME)
    with_norm = [row for row in found if row.get("failed") or row["norms"]]
    assert sum(map(table.converts_wholly, with_norm)) >= 0.97 * len(with_norm)
    shown = {line.split("`")[1] for line in table.exceptions(found).splitlines()[2:]}
    assert shown >= {row["network"] for row in with_norm if not table.converts_wholly(row)}


def made(name: str, **changed: Any) -> rows.Row:
    """A row of a network with which all is right."""
    right = {"pixels": 32, "norms": 4, "converted": 4, "left": {}, "also": [], "fused": 1}
    right |= {"difference": 0.0, "stripped": 0.0, "fused_difference": 1e-7, "seconds": 36.0}
    right |= {"network": name, "family": "f", "entprop": "", "entprop_pipelined": ""}
    return right | WHERE | changed


WRONG: dict[str, dict[str, Any]] = {
    "left: 2 with buffers OddNorm": {"left": {"OddNorm": "2 with buffers"}, "converted": 2},
    "entprop: ValueError: x": {"entprop": "ValueError: x"},
    "entprop_pipelined: loss nan": {"entprop_pipelined": "loss nan"},
    "converted, its outputs differ by 0.5": {"difference": 0.5},
    "converted, its outputs differ by None": {"difference": None},  # NaN
    "stripped, its outputs differ by 0.5": {"stripped": 0.5},
    "fused, its outputs differ by None": {"fused_difference": None},
    "took more than 3 s": {"failed": "took more than 3 s"},
}


def test_the_page_says_what_is_wrong_and_counts(kept: dict[str, list[rows.Row]]) -> None:
    wrong = [made(f"timm:wrong{n}", **changed) for n, changed in enumerate(WRONG.values())]
    assert [table.complaint(row) for row in wrong] == list(WRONG)
    grn = made("timm:grn", left={"GRN": "1 that is dual on request"}, also=["GRN"])
    none = made("torchvision:none", norms=0, converted=0, difference=None, stripped=None)
    assert table.complaint(grn) == table.complaint(none) == table.complaint(made("timm:a")) == ""
    kept[table.NAME] = [*wrong, grn, none, made("timm:a")]
    text = table.section(Path("docs/x.md"))
    assert "**11 networks** were tried: 10 of timm's, from all of its 1 family modules" in text
    assert "10 of them have a norm; **7 convert wholly (70.0 %)**, and 1 more with `also=`" in text
    assert "| `timm:grn` | 4 | 4 | with `also=(GRN,)`: all |" in text
    for row, why in zip(wrong, WRONG, strict=True):
        assert f"`{row['network']}`" in text and why.split(" ")[0] in text
    assert "| no norm | no norm | no norm | no norm | 0 |" in text


def _die(network: Network) -> rows.Row:
    behaviour = {"a": lambda: made(str(network)), "b": lambda: os._exit(7)}
    behaviour |= {"c": lambda: time.sleep(60), "d": lambda: 1 / 0}  # type: ignore[dict-item]
    return behaviour[network.name]()  # type: ignore[return-value]


def test_it_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of one process, the others have their rows; what is there stays."""
    monkeypatch.setattr(rows, "ROWS", tmp_path / "rows")
    monkeypatch.setattr(rows, "PARTS", tmp_path / "parts")
    (tmp_path / "rows").mkdir()
    four = [Network("timm", "f", name) for name in "abcd"]
    monkeypatch.setattr(run, "networks", lambda: four)
    monkeypatch.setattr(run, "check", _die)
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)
    assert run.main(["timm:a", "--seconds", "1"]) == 1  # the others are still to be checked
    assert not (tmp_path / "rows" / "zoo.jsonl").exists()
    assert run.main(["--seconds", "1"]) == 0
    found = rows.read(table.NAME)
    whys = [row.get("failed") for row in found]
    assert [row["network"] for row in found] == [str(network) for network in four]
    assert whys == [None, "its process ended with 7", "took more than 1 s", whys[3]]
    assert whys[3] == "ZeroDivisionError: division by zero"
    monkeypatch.setattr(run, "check", lambda network: made(str(network), pixels=64))
    assert run.main(["--left-over"]) == 0
    assert [row["pixels"] for row in rows.read(table.NAME)] == [32, 64, 64, 64]
    with pytest.raises(SystemExit):
        run.main(["timm:unknown"])

"""Flags are made of options; an option is written once, in one line, and found everywhere."""

from __future__ import annotations

import inspect
import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from entprop_fast import models
from entprop_fast.lab.cli import (
    compare,
    completion,
    corrupt,
    evaluate,
    init,
    options_table,
    study,
    train,
)
from entprop_fast.lab.cli import data as data_command
from entprop_fast.lab.cli.flags import POSITIONAL, method_flags, own_flags, parse, run_flags
from entprop_fast.lab.training.errors import UsageError
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.layers import convert_dual_norm
from entprop_fast.methods import METHODS, EntProp, create_method
from entprop_fast.methods.entprop import EntPropOptions
from entprop_fast.options import option

COMMANDS = (train, compare, evaluate, corrupt, study, data_command, init, completion)


@dataclass(frozen=True, kw_only=True)
class Words:
    """The flags of a command that is not there."""

    files: tuple[str, ...] = option(help="Files.", group=POSITIONAL)
    count: int = option(3, "How many.", low=1, group="data")
    seeds: tuple[int, ...] = option((0,), "Seeds.", group="data")
    rate: float | None = option(None, "How fast.", group="data")
    name: str | None = option(None, "What it is called.")
    fast: bool = option(False, "Hurry.")


def read(words: str, *more: Any) -> tuple[Words, dict[str, Any]]:
    return parse(Words, words.split(), prog="x", description="Try.", more=more)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("a", Words(files=("a",))),
        ("--count 4 a b", Words(files=("a", "b"), count=4)),
        ("--count=4 a", Words(files=("a",), count=4)),
        ("a --seeds 1 -2 --rate 4/255", Words(files=("a",), seeds=(1, -2), rate=4 / 255)),
        ("a --rate -4/255", Words(files=("a",), rate=-4 / 255)),
        ("a --rate -inf --rate 1", Words(files=("a",), rate=1)),
        ("a --name None --fast", Words(files=("a",), name="None", fast=True)),
        ("a --name=--count", Words(files=("a",), name="--count")),
        ("--fast -- a --count", Words(files=("a", "--count"), fast=True)),
    ],
)
def test_what_is_typed(words: str, expected: Words) -> None:
    assert read(words) == (expected, {})


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "FILE"),
        ("--count 4", "FILE"),
        ("a --count", "--count"),
        ("a --count --fast", "--count"),
        ("a --name -x", "--name"),
        ("a --name --", "--name"),
        ("a --count 0", "--count='?0"),
        ("a --count x", "--count='x'"),
        ("a --seeds 1 x", "--seeds='x'"),
        ("a --seeds", "--seeds: a value is missing: INT ..."),
        ("a --rate 1/0", "--rate='1/0'"),
        ("a --cuont 4", "nearest: --count"),
        ("a --fast=1", "'1'"),
        ("a --no-fast", "'--no-fast'"),
    ],
)
def test_what_is_refused(words: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        read(words)


def test_settings_are_what_was_given_of_them() -> None:
    more = [*run_flags(), *method_flags()]
    assert read("a", *more)[1] == {}
    words = "a --no-drop-last --nesterov --lr 1e-3 --eps 8/255 --equalize --no-random-start"
    assert read(words, *more)[1] == {
        **{"drop_last": False, "nesterov": True, "lr": 1e-3, "eps": 8 / 255, "equalize": True},
        "random_start": False,
    }


def help_of(command: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert not stop.value.code
    return " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.__name__.rpartition(".")[2])
def test_help_has_every_flag_with_a_sentence(
    command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said = help_of(command, capsys)
    flags = [*own_flags(command._Flags), *command._more_flags()]
    for one in flags:
        assert f" {one.typed} " in said or f" {one.typed}, " in said
        assert " ".join(one.about.help.split()) in said and one.about.help.endswith(".")
        assert not one.default or f"{one.default})" in said
        assert all(str(choice) in said for choice in one.about.choices)
    for group in {one.about.group for one in flags} - {"", POSITIONAL}:
        assert f" {group} options " in said


def test_adding_an_option_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Options(EntPropOptions):
        """Have one more option."""

        warmth: float = option(0.5, "Share of the run that is warm.", low=0, high=1)
        aux_weight: float = option(1.0, "Weight of the auxiliary loss.", low=-1)

    mine = type("Mine", (EntProp,), {"name": "mine", "Options": Options, "__doc__": "Mine."})
    monkeypatch.setitem(METHODS, "mine", mine)

    model = convert_dual_norm(models.create("wrn10_0.5", num_classes=3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    made: Any = create_method("mine", model, optimizer, warmth=1)
    assert made.warmth == 1.0 and "warmth: Share of the run" in str(mine.__doc__)
    with pytest.raises(ValueError, match="warmth"):  # checks
        create_method("mine", model, optimizer, warmth=2)
    assert resolve("digits", method="mine").options["warmth"] == 0.5  # recipes
    assert resolve("digits", method="mine", warmth="1/4").options["warmth"] == 0.25
    with pytest.raises(ValueError, match="warmth"):
        resolve("digits", method="mine", warmth=2)
    assert read("a --warmth 1/4", *method_flags())[1] == {"warmth": 0.25}  # flags
    assert read("a --aux-weight -1", *method_flags())[1] == {"aux_weight": -1}  # for mine alone
    with pytest.raises(ValueError, match="aux_weight"):
        resolve("digits", method="entprop", aux_weight=-1)
    said = help_of(train, capsys)
    assert "--warmth NUMBER Share of the run that is warm. (in [0, 1]; mine: 0.5)" in said
    assert "| warmth | a number in " in options_table.tables()  # the documentation
    assert inspect.signature(METHODS["mine"]).parameters["warmth"].default == 0.5


def test_the_page_of_options_is_the_code_s() -> None:
    page = Path(options_table.__file__).parents[3] / options_table.PAGE
    assert page.read_text() == options_table.written(page.read_text()), (
        "python -m entprop_fast.lab.cli.options_table"
    )


def test_the_table_goes_between_the_markers_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- options -->stale<!-- /options -->\nafter\n")
    assert options_table.main([str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("-->\nafter\n") and "stale" not in text
    assert all(f"## `{name}`" in text for name in METHODS)
    with pytest.raises(ValueError, match="page"):
        options_table.written("no markers")

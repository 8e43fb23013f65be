"""One door for all commands: it names them as they were called, and opens before torch is there."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from entprop_fast.lab.cli import dispatch, train
from entprop_fast.lab.cli.called import called_through, words_of
from entprop_fast.lab.cli.command_line import command_again
from entprop_fast.lab.cli.commands import COMMANDS, overview, typed
from tests.children import printed, run_python
from tests.lab.conftest import Args, stop_at

CONSOLE = "import sys, entprop_console; code = entprop_console.main(); "
CONSOLE += "print('torch' in sys.modules); sys.exit(code)"
Main = Callable[[list[str]], int]


def console(words: list[str]) -> int:
    return dispatch.main(words, ("entprop",))


# How a command is called, to the words with which help, errors and hints begin.
CALLED: list[tuple[Main, str, str]] = [
    (console, "entprop", "entprop train"),
    (dispatch.main, "python -m entprop_fast", "python -m entprop_fast train"),
    (lambda words: train.main(words[1:]), "", "python -m entprop_fast.train"),
]


@pytest.mark.parametrize(("main", "program", "called"), CALLED, ids=lambda one: str(one)[:8])
def test_help_and_hints_name_the_command_as_it_was_called(
    main: Main,
    program: str,
    called: str,
    tiny: Args,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert capsys.readouterr().out.startswith(f"usage: {called} [-h]")
    stop_at(monkeypatch, 3, signal.SIGINT)
    words = tiny(tmp_path)
    assert main(["train", *words]) == 130
    assert capsys.readouterr().err.endswith(f"to go on: {called} {shlex.join(words)} --resume\n")
    assert words_of("entprop_fast.train") == ["python", "-m", "entprop_fast.train"]  # as before


def test_the_hint_is_that_of_the_start() -> None:
    with called_through("entprop"):
        again = command_again("entprop_fast.env_report", ["a b"])
    assert again(False) == "again: entprop env-report 'a b'"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("data", "no command: entprop data check folder:"),
        ("study", "NAME is missing: entprop study NAME"),
        ("train --epoch 3", "nearest: --epochs"),
        ("env-report all", "'all'"),
        ("env_report all", "'all'"),
        ("trian", "nearest: train"),
        ("--versoin", "'--versoin'"),
        ("completion fish", "bash, zsh"),
        ("completion", "entprop completion SHELL"),
        ("corrupt --dataset digits", "--out is missing"),
        ("predict run", "IMAGE is missing: entprop predict RUN IMAGE [IMAGE ...]. Image files"),
    ],
)
def test_a_refusal_is_one_line(words: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert console(words.split()) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1 and error.startswith("error: ")


# What a command says when nothing is typed after it; the others do something then.
ALONE = {
    "evaluate": "CHECKPOINT is missing: entprop evaluate CHECKPOINT [CHECKPOINT ...]. Run folders",
    "compare": "--methods is missing: entprop compare --methods STR [STR ...]. Rows of the table",
    "study": "NAME is missing: entprop study NAME. Study",
    "predict": "RUN is missing: entprop predict RUN IMAGE [IMAGE ...]. Run folder",
    "export": "RUN is missing: entprop export RUN. Run folder",
    "report": "RUN is missing: entprop report RUN [RUN ...]. Run folders: runs/NAME of train",
    "corrupt": "--dataset is missing: entprop corrupt --dataset STR --out STR. Data set",
    "data": "no command: entprop data check folder:birds, cub --data-dir DIR",
    "init": "PHOTOS is missing: entprop init PHOTOS. Folder of images",
    "completion": "SHELL is missing: entprop completion SHELL. Shell",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_alone_says_what_it_needs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name in ALONE:
        assert console([typed(name)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {ALONE[name]}") and error.count("\n") == 1
    assert console([typed(name), "--bogus"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown argument '--bogus'") and error.count("\n") == 1


@pytest.mark.parametrize(("words", "said"), [((), "entprop COMMAND"), (("--version",), "entprop")])
def test_a_list_of_commands_does_not_wait_for_torch(words: tuple[str, ...], said: str) -> None:
    lines = printed(run_python("-c", CONSOLE, *words)).splitlines()
    assert lines[0].startswith(said) and lines[-1] == "False"


def test_the_console_runs_commands() -> None:
    ran = run_python("-c", CONSOLE, "env-report", "--help")
    lines = printed(ran).splitlines()
    assert lines[0] == "usage: entprop env-report" and lines[-1] == "True"


def test_every_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch.main(["--help"]) == 0
    assert capsys.readouterr().out == f"{overview('python -m entprop_fast')}\n"
    assert len(overview("entprop").splitlines()) == len(COMMANDS) + 1

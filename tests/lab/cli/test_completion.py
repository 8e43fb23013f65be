"""Check that TAB completes commands, flags and values: in real shells, as somebody types."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from entprop_fast import models
from entprop_fast.lab.cli import completion
from entprop_fast.lab.cli.commands import COMMANDS
from entprop_fast.lab.training import loggers
from entprop_fast.methods import METHODS

START = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
SAY = "entprop() { printf 'GOT<%s>' \"$@\"; echo END; }\n"


@pytest.fixture(scope="module", params=["bash", "zsh"])
def shell(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


@pytest.fixture
def written(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script of a shell, beside a folder and a file that can be completed."""
    assert completion.main([shell]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "photos of cats").mkdir()
    (tmp_path / "mine.toml").touch()
    return tmp_path


def completed(shell: str, folder: Path, *lines: str) -> list[list[str]]:
    """Type each line and TAB in a terminal, then Enter; return the words that a command got."""
    process, terminal = pty.fork()
    if not process:
        os.chdir(folder)
        os.environ.update(TERM="dumb", PS1="", HOME=str(folder))
        os.execvp(START[shell][0], START[shell])
    compinit = "autoload -Uz compinit && compinit -u -D\n" if shell == "zsh" else ""
    typed = "".join(f"{line}\t\n" for line in lines)
    os.write(terminal, f"{compinit}source ./script\n{SAY}{typed}exit\n".encode())
    said = b""
    with contextlib.suppress(OSError):  # the terminal ends with its shell
        while data := os.read(terminal, 1 << 16):
            said += data
    os.waitpid(process, 0)
    os.close(terminal)
    got = re.findall(r"((?:GOT<[^>%]*>)+)END", said.decode(errors="replace"))
    return [re.findall(r"GOT<(.*?)>", one) for one in got]


def test_tab_completes_what_is_typed(shell: str, written: Path) -> None:
    lines = {
        "entprop tra": ["train"],
        "entprop env": ["env-report"],
        "entprop train --meth": ["train", "--method"],
        "entprop train --method entprop_": ["train", "--method", "entprop_pipelined"],
        "entprop train --no-nes": ["train", "--no-nesterov"],
        "entprop train --epochs 3 --optimizer sg": [*"train --epochs 3 --optimizer sgd".split()],
        "entprop compare --methods vanilla mixp": [*"compare --methods vanilla mixprop".split()],
        "entprop compare --methods vanilla --bud": [*"compare --methods vanilla --budget".split()],
        "entprop study rat": ["study", "ratio"],
        "entprop train --recipe mi": ["train", "--recipe", "mine.toml"],
        "entprop train --dataset folder:pho": ["train", "--dataset", "folder:photos of cats/"],
    }
    got = completed(shell, written, *lines)
    if shell == "zsh":  # which ends a folder's name otherwise
        got[-1][-1] = got[-1][-1].rstrip("/") + "/"
    assert got == list(lines.values())


def test_nothing_is_typed_between_a_library_and_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert completion.main(["bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "photos").mkdir()
    lines = {
        "entprop train --dataset fo\tpho": ["train", "--dataset", "folder:photos/"],
        "entprop train --arch ti\tresnet18": ["train", "--arch", "timm:resnet18"],
        "entprop train --arch timm:": ["train", "--arch", "timm:"],
        "entprop train --arch torchvision:pho": ["train", "--arch", "torchvision:pho"],
    }
    assert completed("bash", tmp_path, *lines) == list(lines.values())


def test_names_are_real() -> None:
    train = completion.flags_of("train").values
    assert train["--log"] == list(loggers.NAMES)
    archs = train["--arch"] or []
    assert {"timm:", "torchvision:", "resnet50", "wrn10_0.5"} <= set(archs)
    for one in archs:
        if not one.endswith(":"):
            models.create(one, num_classes=2)


def test_all_that_may_follow_is_offered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By `compgen` itself, in bash: every command, every flag, every choice, and no more."""
    assert completion.main(["bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    asked = [[""], *([name.replace("_", "-"), "--"] for name in COMMANDS)]
    asked += [["train", "--method", ""], ["train", "--nesterov", "--score", ""]]
    ask = 'ask() { COMP_WORDS=(entprop "$@"); COMP_CWORD=$#; _entprop; echo ${COMPREPLY[*]}; }\n'
    script = "source ./script\n" + ask + "".join(f"ask {_quoted(one)}\n" for one in asked)
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stderr == ""
    first, *others = (line.split() for line in ran.stdout.splitlines())
    assert first == [*(name.replace("_", "-") for name in COMMANDS), "--help", "--version"]
    for name, flags in zip(COMMANDS, others, strict=False):
        assert flags == list(completion.flags_of(name).values)
    assert others[-2] == list(METHODS)
    assert {"entropy", "random"} <= set(others[-1]) and "--score" not in others[-1]


def _quoted(words: list[str]) -> str:
    return " ".join(f"'{word}'" for word in words)

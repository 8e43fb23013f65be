"""Check a set whose writing was broken off: told from a whole one, gone on with to its bytes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from entprop_fast.lab.cli import corrupt
from entprop_fast.lab.corruptions import write_sets
from entprop_fast.lab.corruptions.common import corrupted_bytes
from entprop_fast.lab.corruptions.set_marker import read_marker
from tests.lab.evaluation.support import write_classes
from tests.lab.training.test_resume import command_named

KINDS = ("contrast", "brightness", "snow")


class Killed(BaseException):
    """Nothing but what is on the disk survives it."""


@pytest.fixture(params=["arrays", "folders"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    shared = ["--device", "cpu", "--threads", "1", "--kinds", *KINDS]
    if request.param == "arrays":
        return ["--dataset", "digits", "--batch-size", "200", *shared]
    for split in ("train", "val"):
        write_classes(tmp_path / "set" / split, count=4, side=40)
    files = ["--dataset", f"folder:{tmp_path}/set", "--image-size", "32", "--batch-size", "5"]
    return [*files, "--scale", "cifar-c", *shared]


def files(root: Path) -> dict[str, bytes]:
    return {str(one.relative_to(root)): one.read_bytes() for one in root.rglob("*.*")}


def broken_in(call: int, end: Callable[[], None]) -> tuple[Callable[..., Tensor], list[str]]:
    """A generator that ends in one of its calls, and the kinds that it was called for."""
    calls: list[str] = []

    def made(images: Tensor, kind: str, *args: Any, **settings: Any) -> Tensor:
        calls.append(kind)
        if len(calls) == call:
            end()
        return corrupted_bytes(images, kind, *args, **settings)

    return made, calls


def killed() -> None:
    raise Killed


HANGUP = partial(signal.raise_signal, signal.SIGHUP)


@pytest.mark.parametrize(
    ("end", "every"), [(killed, 0.0), (killed, 5.0), (HANGUP, 5.0)], ids=["batch", "kind", "stop"]
)
def test_broken_off_anywhere_it_goes_on_to_the_same_bytes(
    end: Callable[[], None],
    every: float,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """FOUND C6: a kill costs seconds of an array, and of image files one batch of one kind."""
    monkeypatch.setattr(write_sets, "EVERY", every)
    whole = tmp_path / "whole"
    assert corrupt.main([*command, "--out", str(whole)]) == 0
    batches = 3 if "digits" in command else 4
    for call in (17, 33):
        out = tmp_path / f"broken-{call}"
        arguments = [*command, "--out", str(out)]
        again = [*arguments, "--resume"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(write_sets, "corrupted_bytes", broken_in(call, end)[0])
            if end is killed:
                with pytest.raises(Killed):
                    corrupt.main(arguments)
            else:
                assert corrupt.main(arguments) == 129
                again = command_named(capsys.readouterr().err, "entprop_fast.corrupt")
        assert (read_marker(out) or {})["complete"] is False
        assert corrupt.main(arguments) == 2 and "--resume" in capsys.readouterr().err
        made, calls = broken_in(-1, killed)
        monkeypatch.setattr(write_sets, "corrupted_bytes", made)
        assert corrupt.main(again) == 0
        assert files(out) == files(whole)
        lost = 5 * batches if every and "digits" in command else 6
        assert call + len(calls) <= 5 * batches * len(KINDS) + lost
    assert corrupt.main([*command, "--out", str(whole), "--resume"]) == 0  # it is whole already


@pytest.mark.parametrize(
    ("other", "named"), [("--seed 1", "seed is 1, was 0"), ("--extra", "kinds"), ("", "")]
)
def test_other_settings_do_not_go_on(
    other: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FOUND C6."""
    write_classes(tmp_path / "set" / "train", side=40)
    write_classes(tmp_path / "set" / "val", side=40)
    dataset = ["--dataset", f"folder:{tmp_path}/set", "--image-size", "32"]
    command = [*dataset, "--device", "cpu", "--out", str(tmp_path / "out"), "--kinds", "contrast"]
    assert corrupt.main(command) == 0
    before = files(tmp_path / "out")
    if not other:  # another clean image
        write_classes(tmp_path / "more", wnids=("n01440764",), count=1, side=60)
        (tmp_path / "more/n01440764/0.JPEG").replace(tmp_path / "set/val/n01440764/0.JPEG")
        named = "clean is"
    assert corrupt.main([*command, *other.split(), "--resume"]) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
    assert files(tmp_path / "out") == before


def test_overwriting_removes_the_older_set_first(tmp_path: Path) -> None:
    """FOUND C6: or --resume would take its files for those of the new one."""
    out = tmp_path / "out"
    arguments = ["--dataset", "digits", "--device", "cpu", "--out", str(out)]
    assert corrupt.main([*arguments, "--kinds", "contrast", "snow", "--seed", "3"]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write_sets, "corrupted_bytes", broken_in(1, killed)[0])
        with pytest.raises(Killed):
            corrupt.main([*arguments, "--kinds", "contrast", "--overwrite"])
    assert not list(out.glob("*snow*")) and not (out / "contrast.npy").exists()
    assert corrupt.main([*arguments, "--kinds", "contrast", "--resume"]) == 0
    assert json.loads((out / "entprop_fast.json").read_text())["seed"] == 0

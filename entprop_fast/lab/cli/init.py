"""Write a commented recipe for a folder of images: ``entprop init photos``."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entprop_fast.lab.cli.called import words_of
from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.data import print_report, watching
from entprop_fast.lab.cli.flags import POSITIONAL, Flag, own_flags, parse
from entprop_fast.lab.data import load
from entprop_fast.lab.data.data_check import Report, check_one
from entprop_fast.lab.data.datasets import FOLDER, usual_image_size
from entprop_fast.lab.data.image_files import IMAGE_SIZE
from entprop_fast.lab.files import create_new
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.choose_settings import Choice, Folder, choose
from entprop_fast.lab.training.commented_recipe import commented
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.errors import UsageError, bad_input, one_line
from entprop_fast.options import option

_MODULE = "entprop_fast.init"


@dataclass(frozen=True, kw_only=True)
class _Flags:
    photos: str = option(
        help="Folder of images: train/ and test/ within it, a folder for each class in both.",
        group=POSITIONAL,
    )
    out: str = option("recipe.toml", "Recipe to write; a file that is there stays.", group="output")


_DESCRIPTION = (
    "Look at a folder of images and write a recipe for it, with a comment over every setting that "
    "says what it is and why it has its value. train --recipe FILE runs it."
)


def _more_flags() -> list[Flag]:
    return own_flags(Config, "weights")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    return run_command(lambda: _init(args), again=command_again(_MODULE, args))


def _init(args: Sequence[str] | None) -> None:
    flags, settings = parse(
        _Flags, args, prog=_MODULE, description=_DESCRIPTION, more=_more_flags()
    )
    out, path = Path(flags.out), Path(flags.photos.removeprefix(FOLDER)).expanduser()
    reporter = Reporter()
    with bad_input():
        _check_out(out)
        if not path.is_dir():
            raise FileNotFoundError(f"PHOTOS {flags.photos!r}: there is no such folder")
        report, folder = _look(path.resolve(), reporter)
        choice = choose(folder, settings.get("weights"))
    reporter.say(report.title)
    print_report(report, reporter)
    _write(out, _text(choice, folder, out))
    for name in ("weights", "image_size", "batch_size", "epochs"):
        value = getattr(choice.config, name)
        reporter.say(f"{name} {value}: {choice.reasons[name]}")
    train = shlex.join([*words_of("entprop_fast.train"), "--recipe", str(out)])
    reporter.say(f"wrote {out}; train with: {train}")


def _check_out(out: Path) -> None:
    """Refuse before anything is read what could not be written or run afterwards."""
    if out.suffix != ".toml":
        raise UsageError(f"--out {out}: a recipe's name ends in .toml")
    if out.exists() or out.is_symlink():
        raise UsageError(f"--out {out} is there already: move it, or choose another --out")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")


def _look(path: Path, reporter: Reporter) -> tuple[Report, Folder]:
    """Check the images, and read them as a run would.

    Raises:
        ValueError, OSError: no run could.
    """
    name = f"{FOLDER}{path}"
    report = check_one(name, None, watching(reporter))
    images = load(name, say=lambda _: None)  # the report says it
    side = usual_image_size(name, None)
    folder = Folder(
        path=path,
        num_train=images.num_train,
        num_test=images.num_test,
        num_classes=images.num_classes,
        side=side or IMAGE_SIZE,
    )
    return report, folder


def _text(choice: Choice, folder: Folder, out: Path) -> str:
    train = shlex.join([*words_of("entprop_fast.train"), "--recipe", str(out)])
    return commented(
        choice.config,
        choice.reasons,
        f"A recipe for {folder.num_train:,} training images of {folder.num_classes:,} classes.",
        f"Train with: {one_line(ValueError(train))}",
        "Every setting is here, with what it means and, where this folder decided it, why it has "
        "its value. Settings without a value are written as a comment. Flags go over the recipe.",
    )


def _write(out: Path, text: str) -> None:
    try:
        with create_new(out) as file:
            file.write(text.encode())
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {one_line(error)}") from error

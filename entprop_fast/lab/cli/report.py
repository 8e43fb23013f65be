"""Write runs as one HTML file: ``python -m entprop_fast.report RUN...``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entprop_fast.lab.cli import env_report
from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.flags import POSITIONAL, Flag, own_flags, parse
from entprop_fast.lab.cli.trained_model import trained_model_option
from entprop_fast.lab.files import write_atomically
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.run_report.examine import Examiner, Sources
from entprop_fast.lab.run_report.page import MARK, render
from entprop_fast.lab.run_report.read_run import read_runs
from entprop_fast.lab.training import run_folder
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.device import resolve_device, set_threads
from entprop_fast.lab.training.errors import UsageError, bad_input, failing, one_line
from entprop_fast.lab.training.own_names import DATA, MODEL
from entprop_fast.options import option

_MOST_IMAGES = 100  # of each kind and run: the file is to stay small


@dataclass(frozen=True, kw_only=True)
class _Flags:
    runs: tuple[str, ...] = option(
        help="Run folders: runs/NAME of train, or those in the folder of a comparison or study.",
        group=POSITIONAL,
    )
    images: int = option(
        12,
        "Most uncertain and most wrong test images to show, so many of each.",
        low=0,
        high=_MOST_IMAGES,
        group="output",
    )
    model: str | None = trained_model_option()
    data: str | None = option(
        None,
        "Images of your own that a run was trained on: MODULE:FUNCTION, which gives (train, test), "
        "each a torch Dataset or (images, labels).",
        group="data",
    )
    batch_size: int | None = option(
        None, "Images in a forward pass. Left out, their size decides.", low=1, group="machine"
    )
    out: str | None = option(
        None,
        "The .html file. Left out, it is report.html in the run's folder, or of several runs in "
        "the current one.",
        group="output",
    )
    overwrite: bool = option(
        False,
        "Replace a file that is no report. An earlier report is replaced without it.",
        group="output",
    )


_MACHINE = ("data_dir", "workers", "device", "threads")

_DESCRIPTION = (
    "Write one HTML file without outside references: scores, curves, accuracy by corruption, "
    "confusion matrix, the most uncertain and most wrong test images, drift of the norms, speed, "
    "settings and environment. Several runs stand side by side. A run that is not finished gets a "
    "report that says so."
)


def _more_flags() -> list[Flag]:
    return own_flags(Config, *_MACHINE)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.report", args)
    return run_command(lambda: _report(args), again=again)


def _report(args: Sequence[str] | None) -> None:
    flags, given = parse(
        _Flags,
        args,
        prog="entprop_fast.report",
        description=_DESCRIPTION,
        more=_more_flags(),
    )
    reporter = Reporter()
    with bad_input():
        set_threads(given.get("threads"))
        sources = Sources(
            device=resolve_device(given.get("device", "auto")),
            data_dir=given.get("data_dir"),
            workers=given.get("workers"),
            batch_size=flags.batch_size,
            model=flags.model,
            data=flags.data,
        )
        runs = read_runs([Path(one) for one in flags.runs])
        _check_own("--model", flags.model, MODEL, [run.settings.get("arch") for run in runs])
        _check_own("--data", flags.data, DATA, [run.settings.get("dataset") for run in runs])
        out = _target(flags)
        examiner = Examiner(sources, flags.images, reporter)
        examined = [examiner.examine(run) for run in runs]
    with reporter.waiting("drawing the page"):
        page = render(runs, examined, env_report.report())
    with failing("name another file with --out"):
        write_atomically(out, page)
    for run, found in zip(runs, examined, strict=True):
        for note in (*run.notes, *found.missing()):
            reporter.say(f"{run.name}: {note}")
    reporter.say(f"written to {out}: {len(page) / 2**20:.1f} MiB, opens in any browser")


def _check_own(flag: str, given: str | None, beginning: str, settings: Sequence[object]) -> None:
    """Refuse a function that no run would be given."""
    if given is not None and not any(str(one).startswith(beginning) for one in settings):
        what = "a network" if flag == "--model" else "images"
        raise UsageError(f"{flag} {given}: no run is of {what} of one's own")


def _target(flags: _Flags) -> Path:
    """Choose the file, and make sure beforehand that it may and can be written.

    Raises:
        UsageError: it may not, or cannot.
    """
    of_run = Path(flags.runs[0]) if len(flags.runs) == 1 else Path()
    out = of_run / run_folder.REPORT if flags.out is None else Path(flags.out)
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name a file")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--out {out}: expected a file that ends in .html")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}")
    try:
        ours = _begins_as_ours(out)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be read: {one_line(error)}") from error
    if not ours and not flags.overwrite:
        raise UsageError(f"--out {out} is no report: --overwrite it, or name another file")
    return out


def _begins_as_ours(path: Path) -> bool:
    """Return whether a file may be replaced: it is a report, or not there."""
    if not path.exists():
        return True
    if not path.is_file():
        return False  # a pipe would wait for a writer
    with path.open("rb") as file:
        return file.read(len(MARK)) == MARK

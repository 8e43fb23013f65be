"""Export a run's network: ``python -m entprop_fast.export RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.flags import POSITIONAL, own_flags, parse
from entprop_fast.lab.cli.trained_model import own_network, trained_model_option
from entprop_fast.lab.files import folder_within
from entprop_fast.lab.publish.export_run import FILES, FORMATS, SCRIPT, export_run, read_formats
from entprop_fast.lab.publish.new_files import check_free, write_new
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.device import set_threads
from entprop_fast.lab.training.errors import bad_input, failing
from entprop_fast.options import option

_INSIDE = "export"  # the folder in a run's


@dataclass(frozen=True, kw_only=True)
class _Flags:
    run: str = option(help="Run folder, its checkpoint.pt or model.safetensors.", group=POSITIONAL)
    model: str | None = trained_model_option()
    to: str = option(
        ",".join(FORMATS),
        f"Formats, joined by commas, of {', '.join(FORMATS)}.",
        group="output",
    )
    out: str | None = option(
        None, f"Folder of the files. Left out, it is {_INSIDE} in the run's.", group="output"
    )
    overwrite: bool = option(False, "Replace the files of an earlier export.", group="output")


_DESCRIPTION = (
    "Write a run's plain network, its batch norms folded into convolutions where that is exact, "
    "with its classes, its preprocessing and a script that classifies an image without this "
    "package. What is written gives the network's logits to 1e-5, checked beforehand."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.export", args)
    return run_command(lambda: _export(args), again=again)


def _export(args: Sequence[str] | None) -> None:
    flags, machine = parse(
        _Flags,
        args,
        prog="entprop_fast.export",
        description=_DESCRIPTION,
        more=own_flags(Config, "threads"),
    )
    reporter = Reporter()
    run = Path(flags.run)
    inside = run if run.is_dir() else run.parent
    with bad_input():
        formats = read_formats(flags.to)
        own = own_network(flags.model)
        set_threads(machine.get("threads"))
        out = inside / _INSIDE if flags.out is None else Path(flags.out)
        check_free(out, FILES, overwrite=flags.overwrite)
        with reporter.waiting("exporting"):
            files = export_run(run, formats, reporter.say, model=own)
    with failing("nothing else was written"):
        if flags.out is None:
            folder_within(inside, _INSIDE)
        write_new(out, files, overwrite=flags.overwrite)
        for stale in set(FILES) - files.keys():  # of an earlier export
            (out / stale).unlink(missing_ok=True)
    reporter.say(f"written to {out}: {', '.join(files)}")
    if SCRIPT in files:
        reporter.say(f"classify an image: python {out / SCRIPT} IMAGE")

"""Classify images with a trained network: ``python -m entprop_fast.predict RUN IMAGE...``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.flags import POSITIONAL, own_flags, parse
from entprop_fast.lab.cli.trained_model import own_network, trained_model_option
from entprop_fast.lab.files import json_lines
from entprop_fast.lab.publish.deployed_network import load_plain
from entprop_fast.lab.publish.predictions import Prediction, find_images, predict
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import records_table
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.device import resolve_device, set_threads
from entprop_fast.lab.training.errors import bad_input
from entprop_fast.options import option


@dataclass(frozen=True, kw_only=True)
class _Flags:
    run: str = option(
        help="Run folder, its checkpoint.pt or model.safetensors, or an export.", group=POSITIONAL
    )
    images: tuple[str, ...] = option(
        help="Image files, or folders of some, at any depth.", group=POSITIONAL
    )
    model: str | None = trained_model_option()
    top: int = option(5, "Classes of each image, the likeliest first.", low=1, group="output")
    json: bool = option(False, "Print a line of JSON for each image.", group="output")
    batch_size: int = option(32, "Images in a forward pass.", low=1, group="machine")


_DESCRIPTION = (
    "Print the likeliest classes of images and their probabilities. Images are resized and cut as "
    "in the run's evaluation."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.predict", args)
    return run_command(lambda: _predict(args), again=again)


def _predict(args: Sequence[str] | None) -> None:
    flags, machine = parse(
        _Flags,
        args,
        prog="entprop_fast.predict",
        description=_DESCRIPTION,
        more=own_flags(Config, "device", "threads"),
    )
    reporter = Reporter()
    with bad_input():
        own = own_network(flags.model)
        set_threads(machine.get("threads"))
        device = resolve_device(machine.get("device") or "auto")
        files = find_images(flags.images)
        network, spec = load_plain(Path(flags.run), reporter.say, own)
        found = []
        with reporter.task("classifying", len(files)) as task:
            for one in predict(
                network.to(device),
                spec,
                files,
                device=device,
                top=flags.top,
                batch_size=flags.batch_size,
            ):
                found.append(one)
                task.reach(len(found))
    if flags.json:
        print(json_lines(asdict(one) for one in found), end="")
    else:
        lines = [line for one in found for line in _lines(one)]
        reporter.console.print(records_table(lines, folded=["image", "class"]))


def _lines(one: Prediction) -> Iterator[dict[str, str]]:
    """Yield a line for each class; the file's name stands in the first one."""
    name = one.file
    for label, share in zip(one.classes, one.probabilities, strict=True):
        yield {"image": name, "class": label, "probability": f"{100 * share:.1f} %"}
        name = ""

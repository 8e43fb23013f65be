"""Write a corrupted copy of a test set: ``python -m entprop_fast.corrupt``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entprop_fast.lab import data
from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.flags import Flag, own_flags, parse
from entprop_fast.lab.corruptions.common import (
    COMMON_KINDS,
    EXTRA_KINDS,
    Scale,
    check_channels,
    check_kind,
)
from entprop_fast.lab.corruptions.set_marker import MARKER, read_marker
from entprop_fast.lab.corruptions.suites import generated_source
from entprop_fast.lab.corruptions.write_sets import write_arrays, write_folders
from entprop_fast.lab.data.datasets import usual_image_size
from entprop_fast.lab.evaluation.choose_suite import usual_scale
from entprop_fast.lab.in_step import main_first
from entprop_fast.lab.job import current
from entprop_fast.lab.lease_file import LEASE
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.device import resolve_device, set_threads
from entprop_fast.lab.training.errors import UsageError, bad_input, failing
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.options import option


@dataclass(frozen=True, kw_only=True)
class _Flags:
    dataset: str = option(help="Data set whose test images are corrupted.", group="data")
    scale: Scale | None = option(
        None,
        "Strengths of the corruptions. Left out, the images' size decides.",
        group="corruption",
    )
    kinds: tuple[str, ...] = option(
        (), "Kinds of corruption. Left out, they are the 15 common ones.", group="corruption"
    )
    extra: bool = option(False, "Write the 4 extra kinds too.", group="corruption")
    seed: int = option(
        0, "Seed of the corruptions, and of the split of digits.", group="corruption"
    )
    batch_size: int = option(100, "Images at a time.", low=1, group="machine")
    out: str = option(help="Folder that the set is written to.", group="output")
    resume: bool = option(
        False,
        "Go on with what a stopped command with the same settings left, or start.",
        group="output",
    )
    overwrite: bool = option(
        False, "Replace what this command wrote to the folder before.", group="output"
    )


_DESCRIPTION = (
    "Corrupt a data set's test images in all kinds and severities: .npy files as CIFAR-10-C has "
    "them for data sets in memory, JPEG folders as ImageNet-C has them for image files. The set "
    "is marked as generated; evaluate reports it as such."
)


def _more_flags() -> list[Flag]:
    return own_flags(Config, "data_dir", "image_size", "test_size", "device", "threads")


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.corrupt", args, "--resume")
    return run_command(lambda: _corrupt(args), again=again, together=True)


def _corrupt(args: Sequence[str] | None) -> None:
    flags, settings = parse(
        _Flags,
        args,
        prog="entprop_fast.corrupt",
        description=_DESCRIPTION,
        more=_more_flags(),
    )
    reporter = Reporter()
    with bad_input():
        root = Path(flags.out)
        kinds = _kinds(flags)
        set_threads(settings.get("threads"))
        device = resolve_device(settings.get("device", "auto"))
        if current().is_main:
            _check_folder(root, overwrite=flags.overwrite, resume=flags.resume)
        data_dir, size = settings.get("data_dir"), settings.get("image_size")
        if size is None:  # what a run on these images takes
            size = usual_image_size(flags.dataset, data_dir)
        with main_first(), reporter.waiting(f"reading data set {flags.dataset}"):
            images = data.load(
                flags.dataset,
                data_dir=data_dir,
                seed=flags.seed,
                image_size=size,
                test_only=True,
                test_size=settings.get("test_size"),
                say=reporter.say,
            )
        for kind in kinds:
            check_channels(kind, images.image_shape[0])
        scale: Scale = flags.scale or usual_scale(images)
        side = images.image_shape[-1]
        reporter.say(
            f"{generated_source(scale, flags.seed)}: {images.num_test} test images of {side} pixels"
        )
    folder = RunFolder(root)
    with folder.held():
        if current().is_main:  # one lease for all processes
            folder.claim(reporter.say)
        write: Any = write_folders if isinstance(images, data.ImageFiles) else write_arrays
        with (
            reporter.waiting("writing the set"),
            bad_input(),
            failing("--resume goes on"),
        ):
            write(
                images,
                root,
                kinds,
                scale=scale,
                seed=flags.seed,
                device=device,
                batch_size=flags.batch_size,
                resume=flags.resume,
                say=reporter.say,
            )
    reporter.say(f"written to {root}; {MARKER} there says how it was made")


def _kinds(flags: _Flags) -> tuple[str, ...]:
    kinds = flags.kinds or COMMON_KINDS
    for kind in kinds:
        check_kind(kind)
    more = EXTRA_KINDS if flags.extra else ()
    return tuple(dict.fromkeys((*kinds, *more)))


def _check_folder(root: Path, *, overwrite: bool, resume: bool) -> None:
    """Refuse to write over files of another program: an official set has the same names."""
    if resume and overwrite:
        raise UsageError("--resume goes on with a set and --overwrite replaces it: give one")
    held = {one.name for one in root.iterdir()} if root.exists() else set()
    if not held - {LEASE, f"{MARKER}.part"}:  # left by a kill at the very beginning
        return
    marker = read_marker(root)
    if marker is None:
        raise UsageError(f"{root} holds files of another program: choose another --out")
    if not overwrite and not resume:
        what = "a set:" if marker.get("complete") is True else "a part of a set: --resume it,"
        raise UsageError(f"{root} already holds {what} --overwrite it, or choose another --out")

"""``python -m entprop_fast.corrupt``: a corrupted copy of a test set, in the official layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from entprop_fast import name_errors
from entprop_fast.lab import data
from entprop_fast.lab.cli.command_line import (
    command_again,
    flag_class,
    optional_flag,
    optional_flags,
    parse,
    run_command,
    several,
    switch,
)
from entprop_fast.lab.corruptions.common import (
    COMMON_KINDS,
    EXTRA_KINDS,
    SCALES,
    Scale,
    check_channels,
    check_kind,
)
from entprop_fast.lab.corruptions.set_marker import MARKER, read_marker
from entprop_fast.lab.corruptions.suites import generated_source
from entprop_fast.lab.corruptions.write_sets import write_arrays, write_folders
from entprop_fast.lab.data.datasets import usual_image_size
from entprop_fast.lab.evaluation.choose_suite import usual_scale
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.stopping import StopSignals
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.device import resolve_device, set_threads
from entprop_fast.lab.training.errors import UsageError, bad_input, failing
from entprop_fast.lab.training.run_folder import LOCK, RunFolder

_Flags = flag_class(
    "CorruptFlags",
    optional_flag("dataset", str, "whose test images are corrupted; must be given"),
    *optional_flags(Config, "data_dir", "image_size", "device", "threads"),
    optional_flag("out", str, "folder of the set; must be given"),
    optional_flag("scale", str, "cifar-c or imagenet-c; by the images' size when left out"),
    several("kinds", str, "of corruption; the 15 common ones when left out"),
    switch("extra", "the 4 extra kinds too"),
    optional_flag("seed", int, "of the corruptions (and the digits' split), 0 when left out"),
    optional_flag("batch_size", int, "images at a time, 100 when left out"),
    switch("resume", "go on with what a stopped command with the same settings left, or start"),
    switch("overwrite", "replace what this command wrote to the folder before"),
)

_DESCRIPTION = (
    "Corrupt a data set's test images in all kinds and severities: .npy files as CIFAR-10-C has "
    "them for data sets in memory, JPEG folders as ImageNet-C has them for image files. The set "
    "is marked as generated; evaluate reports it as such."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.corrupt", args, "--resume")
    return run_command(lambda signals: _corrupt(args, signals), again=again)


def _corrupt(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = parse(_Flags, args, prog="entprop_fast.corrupt", description=_DESCRIPTION)
    reporter = Reporter()
    with bad_input():
        if flags.dataset is None or flags.out is None:
            raise ValueError("--dataset and --out must be given")
        root = Path(flags.out)
        kinds = _kinds(flags)
        if flags.scale is not None and flags.scale not in SCALES:
            raise name_errors.unknown("scale", flags.scale, SCALES)
        if flags.batch_size is not None and flags.batch_size < 1:
            raise ValueError(f"batch_size = {flags.batch_size} must be at least 1")
        set_threads(flags.threads)
        device = resolve_device(flags.device or "auto")
        _check_folder(root, overwrite=flags.overwrite, resume=flags.resume)
        seed, size = flags.seed or 0, flags.image_size
        if size is None:  # what a run on these images takes
            size = usual_image_size(flags.dataset, flags.data_dir)
        with reporter.waiting(f"reading data set {flags.dataset}"):
            images = data.load(
                flags.dataset,
                data_dir=flags.data_dir,
                seed=seed,
                image_size=size,
                test_only=True,
                say=reporter.say,
            )
        for kind in kinds:
            check_channels(kind, images.image_shape[0])
        scale: Scale = flags.scale or usual_scale(images)
        side = images.image_shape[-1]
        reporter.say(
            f"{generated_source(scale, seed)}: {images.num_test} test images of {side} pixels"
        )
    folder = RunFolder(root)
    folder.claim()
    try:
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
                seed=seed,
                device=device,
                batch_size=flags.batch_size or 100,
                resume=flags.resume,
                say=reporter.say,
            )
    finally:
        folder.release()
    reporter.say(f"written to {root}; {MARKER} there says how it was made")


def _kinds(flags: Any) -> tuple[str, ...]:
    kinds = tuple(flags.kinds or COMMON_KINDS)
    for kind in kinds:
        check_kind(kind)
    more = EXTRA_KINDS if flags.extra else ()
    return tuple(dict.fromkeys((*kinds, *more)))


def _check_folder(root: Path, *, overwrite: bool, resume: bool) -> None:
    """Never over files that another program wrote: an official set has the same names."""
    if resume and overwrite:
        raise UsageError("--resume goes on with a set and --overwrite replaces it: give one")
    held = {one.name for one in root.iterdir()} if root.exists() else set()
    if not held - {LOCK, f"{MARKER}.part"}:  # left by a kill at the very beginning
        return
    marker = read_marker(root)
    if marker is None:
        raise UsageError(f"{root} holds files of another program: choose another --out")
    if not overwrite and not resume:
        what = "a set:" if marker.get("complete") is True else "a part of a set: --resume it,"
        raise UsageError(f"{root} already holds {what} --overwrite it, or choose another --out")

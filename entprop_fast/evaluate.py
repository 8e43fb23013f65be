"""``python -m entprop_fast.evaluate CHECKPOINT``: SA, RA and Hscore of a trained network."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast import checkpoint, data, names
from entprop_fast.layers import route
from entprop_fast.methods import needs_dual_norms
from entprop_fast.run import cli, run_folder
from entprop_fast.run.deploy import NetworkSpec, load_deployable
from entprop_fast.run.errors import bad_input
from entprop_fast.run.progress import Reporter
from entprop_fast.run.report import corruption_table, scores_table
from entprop_fast.run.results import Scores, evaluate_batches
from entprop_fast.run.signals import StopSignals
from entprop_fast.run.trainer import EVALUATION_BATCH, FILES_BATCH, resolve_device

NORMS = ("main", "aux")

_Flags = cli.flag_class(
    "EvaluateFlags",
    cli.positional("checkpoint", "a run folder, its checkpoint.pt, or its model.safetensors"),
    cli.optional_flag(
        "dataset", str, "the run's when left out; its test images are those of the run's seed"
    ),
    cli.optional_flag("data_dir", str, "folder of a data set that is not embedded"),
    cli.optional_flag("norms", str, "main (the default, what is deployed) or aux"),
    cli.optional_flag(
        "batch_size",
        int,
        f"images in a forward pass; {EVALUATION_BATCH}, or {FILES_BATCH} from files, when left out",
    ),
    cli.optional_flag("device", str, "auto, cpu, cuda or cuda:N"),
    cli.optional_flag("threads", int, "CPU threads, torch's choice when left out"),
    cli.optional_flag("out", str, "write the scores to this JSON file as well"),
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    return cli.run_command(lambda signals: _evaluate(args, signals))


def load_network(
    path: Path, say: Callable[[str], None] = print
) -> tuple[nn.Module, NetworkSpec, bool]:
    """A trained network on the CPU, what it was trained on, and whether its norms are dual.

    Args:
        path: a run folder, its ``checkpoint.pt``, or its ``model.safetensors``.
        say: is told when a corrupt checkpoint makes the previous one be used.

    Raises:
        ValueError: corrupt, truncated, or no network of a run.
        FileNotFoundError: nothing is there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such checkpoint or run folder")
    if path.suffix == ".safetensors":
        return (*load_deployable(path), False)
    if path.is_dir() or path.name == checkpoint.CURRENT:
        folder = path if path.is_dir() else path.parent
        state = checkpoint.read_newest(folder, say)
        deployed = folder / run_folder.MODEL
        if state is None and deployed.exists():
            return (*load_deployable(deployed), False)
        if state is None:
            raise ValueError(f"{folder} holds neither a checkpoint nor {run_folder.MODEL}")
    else:
        state = checkpoint.read(path)
    return _from_state(path, state)


def _from_state(path: Path, state: dict[str, Any]) -> tuple[nn.Module, NetworkSpec, bool]:
    try:
        spec = NetworkSpec(**state["network"])
        method, options = state["config"]["method"], state["config"]["options"]
        model = spec.build_for(method, options)
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} is another version's checkpoint: {error}") from error
    return model, spec, needs_dual_norms(method, options)


def _evaluate(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = cli.parse(
        _Flags,
        args,
        prog="entprop_fast.evaluate",
        description="Accuracy on clean images (SA), on corrupted ones (RA), and their Hscore.",
    )
    reporter = Reporter()
    norms = flags.norms or "main"
    with bad_input():
        if norms not in NORMS:
            raise names.unknown("norms", norms, NORMS)
        if flags.out is not None and not Path(flags.out).parent.is_dir():
            raise ValueError(f"--out {flags.out}: there is no folder {Path(flags.out).parent}")
        if flags.threads is not None:
            torch.set_num_threads(flags.threads)
        device = resolve_device(flags.device or "auto")
        model, spec, dual = load_network(Path(flags.checkpoint), reporter.say)
        if norms == "aux" and not dual:
            raise ValueError(
                f"--norms aux: {flags.checkpoint} has no auxiliary norms; only the checkpoint.pt "
                "of a method that trains them does"
            )
        images = _test_images(flags.dataset or spec.dataset, spec, flags.data_dir, reporter.say)
        scores = _scores(model.to(device), images, device, norms, flags.batch_size)
    row = {"norms": norms, "SA": scores.sa, "RA": scores.ra, "Hscore": scores.hscore}
    reporter.console.print(corruption_table(scores.corruptions))
    reporter.console.print(scores_table([row]))
    if flags.out is not None:
        with bad_input():
            described = {"checkpoint": flags.checkpoint, "dataset": images.name, "norms": norms}
            run_folder.write_json(Path(flags.out), described | asdict(scores))


def _test_images(
    dataset: str, spec: NetworkSpec, data_dir: str | None, say: Callable[[str], None]
) -> data.ImageSet:
    images = data.load(
        dataset,
        data_dir=data_dir,
        seed=spec.seed,
        image_size=spec.image_size,
        test_only=True,
        say=say,
    )
    channels = images.image_shape[0]
    if (images.num_classes, channels) != (spec.num_classes, spec.in_channels):
        raise ValueError(
            f"dataset {dataset!r} has {images.num_classes} classes and {channels} channels, the "
            f"network was trained for {spec.num_classes} and {spec.in_channels}"
        )
    return images


def _scores(
    model: nn.Module, images: data.ImageSet, device: torch.device, norms: str, batch: int | None
) -> Scores:
    usual = FILES_BATCH if isinstance(images, data.ImageFiles) else EVALUATION_BATCH
    batch_size = usual if batch is None else batch

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for pictures, labels in images.test_batches(batch_size):
            yield data.channels_last(pictures.to(device)), labels.to(device)

    routed = route(model, "aux") if norms == "aux" else contextlib.nullcontext()
    with routed:
        return evaluate_batches(model, batches)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m entprop_fast.evaluate CHECKPOINT ...``: SA, RA, Hscore and more of networks."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from entprop_fast.lab import checkpoint, data
from entprop_fast.lab.cli.command_line import (
    command_again,
    flag_class,
    optional_flag,
    optional_flags,
    parse,
    positionals,
    run_command,
    several,
    switch,
)
from entprop_fast.lab.data.class_folders import NATURAL
from entprop_fast.lab.evaluation import (
    Evaluation,
    EvaluationOptions,
    evaluate_model,
    evaluation_report,
    evaluation_tables,
)
from entprop_fast.lab.evaluation.attacks import NO_DEFENCE
from entprop_fast.lab.evaluation.kept_counts import Kept
from entprop_fast.lab.files import write_json
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import corruption_table
from entprop_fast.lab.stop_signals import StopSignals
from entprop_fast.lab.training import run_folder
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.deploy import NetworkSpec, load_deployable
from entprop_fast.lab.training.device import resolve_device, set_threads
from entprop_fast.lab.training.errors import UsageError, bad_input, failing, one_line
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.methods import needs_dual_norms

_Flags = flag_class(
    "EvaluateFlags",
    positionals("checkpoint", "run folders, their checkpoint.pt or model.safetensors"),
    optional_flag(
        "dataset", str, "the run's when left out; its test images are those of the run's seed"
    ),
    *optional_flags(Config, "data_dir", "corruptions", "workers", "device", "threads"),
    optional_flag("norms", str, "main (the default, what is deployed) or aux"),
    optional_flag("scale", str, "strengths of generated corruptions: cifar-c or imagenet-c"),
    switch("extra", "the 4 extra kinds of corruption too, which are in no mean"),
    several("also", str, f"further test sets: {', '.join(NATURAL)}"),
    optional_flag(
        "official_dir", str, "folder of CIFAR-10-C, imagenet-c, imagenet-a, ...; --data-dir's"
    ),
    optional_flag("cache", str, "folder in which generated images are kept"),
    optional_flag("pgd", int, "steps of a PGD attack, none when left out"),
    optional_flag("eps", float, "radius of attacks in image units, 8/255 when left out"),
    optional_flag("alpha", float, "step of PGD in image units, 2/255 when left out"),
    switch("autoattack", "run AutoAttack, if it is installed"),
    optional_flag("seed", int, "of generated corruptions and attacks, 0 when left out"),
    optional_flag("batch_size", int, "images in a forward pass, by their size when left out"),
    optional_flag("out", str, "a .json file for the numbers, or a folder for a whole report"),
)

_DESCRIPTION = (
    "Accuracy on clean images (SA), on corrupted ones (RA), their Hscore, and more where asked: "
    "official and generated corruptions, ImageNet-A, -R and Stylized, attacks. Several "
    "checkpoints are compared."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.evaluate", args)
    return run_command(lambda signals: _evaluate(args, signals), again=again)


def load_network(
    path: Path, say: Callable[[str], None] = print
) -> tuple[nn.Module, NetworkSpec, bool]:
    """A trained network on the CPU, what it was trained on, and whether its norms are dual.

    Args:
        path: a run folder, its ``checkpoint.pt``, or its ``model.safetensors``.
        say: is told when a corrupt checkpoint makes the previous one be used, and when the training
            was not whole.

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
    return _from_state(path, state, say)


def _from_state(
    path: Path, state: dict[str, Any], say: Callable[[str], None]
) -> tuple[nn.Module, NetworkSpec, bool]:
    try:
        done, epochs = state["epoch"], state["config"]["epochs"]
        unfinished = done < epochs
        spec = NetworkSpec.of(state["network"])
        method, options = state["config"]["method"], state["config"]["options"]
        model = spec.build_for(method, options)
        model.load_state_dict(state["model"])
    except ImportError:
        raise
    except Exception as error:  # anybody may have written it
        raise ValueError(f"{path} is another version's checkpoint: {error!r}") from error
    if unfinished:
        say(f"{path} is not trained to its end: {done} of {epochs} epochs are whole")
    return model, spec, needs_dual_norms(method, options)


def _evaluate(args: Sequence[str] | None, signals: StopSignals) -> None:
    flags = parse(_Flags, args, prog="entprop_fast.evaluate", description=_DESCRIPTION)
    reporter = Reporter()
    with bad_input():
        if not flags.checkpoints:
            raise ValueError("CHECKPOINT is missing: a run folder, say")
        out = None if flags.out is None else Path(flags.out)
        set_threads(flags.threads)
        device = resolve_device(flags.device or "auto")
        _check_used(flags)
        options = _options(flags)
        with _writable(out), Kept(_beside(out, flags.checkpoints[0]), reporter.say) as kept:
            evaluations = _all(flags, options, device, reporter, kept)
            if out is not None:
                _write(out, evaluations)
    _print(evaluations, reporter)
    if out is not None and out.suffix != ".json":
        reporter.say(f"evaluation.md, evaluation.json and pictures are in {out}")


def _beside(out: Path | None, first: str) -> Path:
    """Where the counts are kept meanwhile: with the results, else with the first network."""
    if out is not None:
        return out.parent if out.suffix == ".json" else out
    return Path(first) if Path(first).is_dir() else Path(first).parent


def _write(out: Path, evaluations: Sequence[Evaluation]) -> None:
    with failing("the same command again goes on with what was counted"):
        if out.suffix == ".json":
            write_json(out, evaluation_report.as_document(evaluations))
        else:
            evaluation_report.write(out, evaluations)


def _print(evaluations: Sequence[Evaluation], reporter: Reporter) -> None:
    if len(evaluations) == 1 and evaluations[0].corruptions:
        one = evaluations[0]
        kinds = one.corruptions | one.extra
        reporter.console.print(corruption_table({one.label_of(k): v for k, v in kinds.items()}))
    reporter.console.print(*evaluation_report.terminal_tables(evaluations), sep="\n")
    found = [one.as_dict() for one in evaluations]
    reporter.say(evaluation_tables.legend(found))
    if evaluation_tables.undefended(found):
        reporter.say(NO_DEFENCE)


@contextlib.contextmanager
def _writable(out: Path | None) -> Iterator[None]:
    """Make sure beforehand that the results can be written; leave no folder where there are none.

    Raises:
        UsageError: they cannot.
    """
    if out is None:
        yield
        return
    if out.suffix == ".json":  # others may be writing theirs into the same folder
        if not out.parent.is_dir():
            raise UsageError(f"--out {out}: there is no folder {out.parent}")
        if out.is_dir():
            raise UsageError(f"--out {out} is a folder: name a file, or a folder without .json")
        try:
            tempfile.TemporaryFile(dir=out.parent).close()
        except OSError as error:
            raise UsageError(f"--out {out} cannot be written: {one_line(error)}") from error
        yield
        return
    folder = RunFolder(out)
    folder.claim()
    try:
        yield
    finally:
        folder.release()


def _check_used(flags: Any) -> None:
    """Refuse what would do nothing."""
    if flags.alpha is not None and not flags.pgd:
        raise ValueError("--alpha is the step of PGD: give --pgd STEPS with it")
    if flags.eps is not None and not (flags.pgd or flags.autoattack):
        raise ValueError("--eps is the radius of attacks: give --pgd STEPS or --autoattack with it")


def _options(flags: Any) -> EvaluationOptions:
    """The flags that were given; the others keep their defaults."""
    values = {
        "norms": flags.norms,
        "corruptions": flags.corruptions,
        "scale": flags.scale,
        "extra": flags.extra,
        "also": flags.also,
        "official_dir": flags.official_dir or flags.data_dir,
        "cache_dir": flags.cache,
        "pgd": flags.pgd,
        "eps": flags.eps,
        "alpha": flags.alpha,
        "autoattack": flags.autoattack,
        "seed": flags.seed,
    }
    return EvaluationOptions(**{name: one for name, one in values.items() if one is not None})


def _all(
    flags: Any, options: EvaluationOptions, device: torch.device, reporter: Reporter, kept: Kept
) -> list[Evaluation]:
    """Every checkpoint on one data set; all are loaded and checked before the first is measured."""
    networks = []
    for name in flags.checkpoints:
        with reporter.waiting(f"building the network of {name}"):
            model, spec, dual = load_network(Path(name), reporter.say)
        if options.norms == "aux" and not dual:
            raise ValueError(
                f"--norms aux: {name} has no auxiliary norms; only the checkpoint.pt "
                "of a method that trains them does"
            )
        networks.append((name, model, _test_images(spec, flags, reporter)))
    if len({images.name for _, _, images in networks}) > 1:
        raise ValueError("the checkpoints are of several data sets: choose one with --dataset")
    found = []
    for name, model, images in networks:
        if len(networks) > 1:
            reporter.say(name)
        with reporter.measuring() as progress:
            evaluation = evaluate_model(
                model.to(device),
                images,
                options,
                name=name,
                batch_size=flags.batch_size,
                workers=flags.workers,
                say=reporter.say,
                kept=kept,
                progress=progress,
            )
        found.append(evaluation)
        model.cpu()
    return found


def _test_images(spec: NetworkSpec, flags: Any, reporter: Reporter) -> data.ImageSet:
    dataset = flags.dataset or spec.dataset
    with reporter.waiting(f"reading data set {dataset}"):
        images = data.load(
            dataset,
            data_dir=flags.data_dir,
            seed=spec.seed,
            image_size=spec.image_size,
            test_only=True,
            say=reporter.say,
        )
    channels = images.image_shape[0]
    if (images.num_classes, channels) != (spec.num_classes, spec.in_channels):
        raise ValueError(
            f"dataset {dataset!r} has {images.num_classes} classes and {channels} channels, the "
            f"network was trained for {spec.num_classes} and {spec.in_channels}"
        )
    return images

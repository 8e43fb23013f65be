"""Measure SA, RA, Hscore and more of networks: ``python -m entprop_fast.evaluate CHECKPOINT``."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from entprop_fast.lab.cli.command_line import command_again, run_command
from entprop_fast.lab.cli.flags import POSITIONAL, Flag, own_flags, parse
from entprop_fast.lab.cli.shared_options import data_option
from entprop_fast.lab.cli.trained_model import own_network, trained_model_option
from entprop_fast.lab.data import ImageData, ImageFiles
from entprop_fast.lab.evaluation import (
    Evaluation,
    EvaluationOptions,
    evaluate_model,
    evaluation_report,
    evaluation_tables,
)
from entprop_fast.lab.evaluation.attacks import NO_DEFENCE
from entprop_fast.lab.evaluation.saved_counts import SavedCounts
from entprop_fast.lab.files import write_json
from entprop_fast.lab.in_step import main_first
from entprop_fast.lab.job import current
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.tables import corruption_table
from entprop_fast.lab.training import user_code
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.device import resolve_device, set_threads
from entprop_fast.lab.training.errors import UsageError, bad_input, failing, one_line
from entprop_fast.lab.training.load_network import load_network, load_test_images
from entprop_fast.lab.training.own_names import MODEL
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.options import option


@dataclass(frozen=True, kw_only=True)
class _Flags:
    checkpoints: tuple[str, ...] = option(
        help="Run folders, their checkpoint.pt or model.safetensors.", group=POSITIONAL
    )
    dataset: str | None = option(
        None,
        "Data set whose test images are those of the run's seed. Left out, it is the run's.",
        group="data",
    )
    model: str | None = trained_model_option()
    data: str | None = data_option()
    cache: str | None = option(
        None, "Folder in which generated images are kept, to be used again.", group="data"
    )
    batch_size: int | None = option(
        None, "Images in a forward pass. Left out, their size decides.", group="machine"
    )
    out: str | None = option(
        None, "A .json file for the numbers, or a folder for a whole report.", group="output"
    )


_MACHINE = ("data_dir", "test_size", "workers", "device", "threads")
_MEASURED = (
    *("norms", "corruptions", "scale", "extra", "also", "shift", "official_dir", "pgd"),
    *("eps", "alpha", "autoattack", "seed"),
)

_DESCRIPTION = (
    "Accuracy on clean images (SA), on corrupted ones (RA), their Hscore, and more where asked: "
    "official and generated corruptions, ImageNet-A, -R and Stylized, natural shifts, attacks. "
    "Several checkpoints are compared."
)


def _more_flags() -> list[Flag]:
    return [*own_flags(Config, *_MACHINE), *own_flags(EvaluationOptions, *_MEASURED)]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command on `args` (None: the command line's) and return its exit code."""
    again = command_again("entprop_fast.evaluate", args)
    return run_command(lambda: _evaluate(args), again=again, together=True)


def _evaluate(args: Sequence[str] | None) -> None:
    flags, settings = parse(
        _Flags,
        args,
        prog="entprop_fast.evaluate",
        description=_DESCRIPTION,
        more=_more_flags(),
    )
    machine = {name: settings.pop(name, None) for name in _MACHINE}
    reporter = Reporter()
    with bad_input():
        out = None if flags.out is None else Path(flags.out)
        set_threads(machine["threads"])
        device = resolve_device(machine["device"] or "auto")
        _check_used(settings)
        settings.setdefault("official_dir", machine["data_dir"])
        options = EvaluationOptions(**settings, cache_dir=flags.cache)
        mine = out if current().is_main else None
        with _writable(mine), SavedCounts(_beside(out, flags.checkpoints[0]), reporter.say) as kept:
            evaluations = _all(flags, machine, options, device, reporter, kept)
            files = [] if mine is None else _write(mine, evaluations)
    _print(evaluations, reporter)
    if out is not None and out.suffix != ".json":
        reporter.say(f"files in {out}: {', '.join(files)}")


def _beside(out: Path | None, first: str) -> Path:
    """Choose where counts are kept meanwhile: with the results, else with the first network."""
    if out is not None:
        return out.parent if out.suffix == ".json" else out
    return Path(first) if Path(first).is_dir() else Path(first).parent


def _write(out: Path, evaluations: Sequence[Evaluation]) -> list[str]:
    """Write the results; return the names of the files."""
    with failing("the same command again goes on with what was counted"):
        if out.suffix != ".json":
            return evaluation_report.write(out, evaluations)
        write_json(out, evaluation_report.as_document(evaluations))
        return [out.name]


def _print(evaluations: Sequence[Evaluation], reporter: Reporter) -> None:
    if len(evaluations) == 1 and evaluations[0].corruptions:
        one = evaluations[0]
        kinds = one.corruptions | one.extra
        reporter.console.print(corruption_table({one.label_of(k): v for k, v in kinds.items()}))
    reporter.console.print(*evaluation_report.terminal_tables(evaluations), sep="\n")
    found = [one.as_dict() for one in evaluations]
    reporter.say(evaluation_tables.legend(found))
    if any(one.shifts for one in evaluations):
        reporter.say(evaluation_tables.SHIFTS)
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
    with RunFolder(out).claimed():
        yield


def _check_used(given: Mapping[str, Any]) -> None:
    """Refuse what would do nothing."""
    if "alpha" in given and not given.get("pgd"):
        raise ValueError("--alpha is the step of PGD: give --pgd STEPS with it")
    if "eps" in given and not (given.get("pgd") or given["autoattack"]):
        raise ValueError("--eps is the radius of attacks: give --pgd STEPS or --autoattack with it")


def _all(
    flags: _Flags,
    machine: Mapping[str, Any],
    options: EvaluationOptions,
    device: torch.device,
    reporter: Reporter,
    kept: SavedCounts,
) -> list[Evaluation]:
    """Measure every checkpoint on one data set; all are checked before the first is measured."""
    networks = []
    own = own_network(flags.model)
    for name in flags.checkpoints:
        with reporter.waiting(f"building the network of {name}"):
            model, spec, dual = load_network(Path(name), reporter.say, model=own)
        if options.norms == "aux" and not dual:
            raise ValueError(
                f"--norms aux: {name} has no auxiliary norms; only the checkpoint.pt "
                "of a method that trains them does"
            )
        dataset = flags.dataset or spec.dataset
        if flags.data is not None:
            with reporter.waiting(f"reading the images of {flags.data}"):
                images = user_code.own_test_images(
                    spec, flags.data, reporter.say, workers=machine["workers"]
                )
        else:
            with main_first(), reporter.waiting(f"reading data set {dataset}"):
                images = load_test_images(
                    spec,
                    dataset,
                    data_dir=machine["data_dir"],
                    test_size=machine["test_size"],
                    say=reporter.say,
                )
        networks.append((name, model, spec, images))
    if own is not None and not any(spec.arch.startswith(MODEL) for _, _, spec, _ in networks):
        raise ValueError(f"--model {flags.model}: no checkpoint is of a network of one's own")
    if len({images.name for *_, images in networks}) > 1:
        raise ValueError("the checkpoints are of several data sets: choose one with --dataset")
    found = []
    for name, model, spec, images in networks:
        if len(networks) > 1:
            reporter.say(name)
        with reporter.measuring() as progress:
            evaluation = evaluate_model(
                model.to(device),
                images,
                options,
                name=name,
                normalization=(spec.mean, spec.std) if spec.mean else None,
                batch_size=flags.batch_size,
                workers=machine["workers"],
                say=reporter.say,
                kept=kept if isinstance(images, ImageData | ImageFiles) else None,
                progress=progress,
            )
        found.append(evaluation)
        model.cpu()
    return found

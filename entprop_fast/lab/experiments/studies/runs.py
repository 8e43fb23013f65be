"""Plan the runs behind a study: settings and folders; done by the runner of all experiments."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from entprop_fast.lab.experiments import runner
from entprop_fast.lab.experiments.one_run import Record, Run
from entprop_fast.lab.experiments.studies.form import Options
from entprop_fast.lab.experiments.studies.probe import (
    MakeProbe,
    Probe,
    read_record,
    train_watched,
)
from entprop_fast.lab.experiments.workers import places
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.config import MACHINE_SETTINGS, Config
from entprop_fast.lab.training.errors import RunFailed, bad_input
from entprop_fast.lab.training.method_settings import Value

Settings = Mapping[str, Value]
Grid = dict[str, list[Record]]  # variant to its records, in the order of the seeds


def run_grid(
    options: Options,
    variants: Mapping[str, Settings],
    reporter: Reporter,
    probe: MakeProbe | Mapping[str, MakeProbe] = Probe,
) -> Grid:
    """Do every variant with every seed; finished runs of the folder are not trained again.

    Args:
        options: of the study.
        variants: name to settings.
        reporter: hears of every run that ends.
        probe: watches each run; by variant where they differ, those without one unwatched.

    Raises:
        UsageError: settings or data that cannot be used.
        RunFailed: a loss became NaN or infinite, or a process was killed; the others are done.
    """
    of_variant = probe if isinstance(probe, Mapping) else dict.fromkeys(variants, probe)
    with bad_input():
        runs = {
            name: [
                _run(options, name, settings, seed, of_variant.get(name, Probe))
                for seed in options.seeds
            ]
            for name, settings in variants.items()
        }
        devices = places(options.device, options.workers, 1) if options.workers != 1 else ()
    # A recipe may make one run of two variants.
    once = {run.folder: run for of_seeds in runs.values() for run in of_seeds}
    records, failures = runner.run_all(
        list(once.values()), devices, reporter, lambda run: read_record(run.config)
    )
    if failures:
        folder, why = next(iter(failures.items()))
        others = f"; so did {len(failures) - 1} more" if len(failures) > 1 else ""
        raise RunFailed(f"the run in {folder}: {why}{others}; finished runs are kept")
    runner.source_of(records)
    return {name: [records[run.folder] for run in of_seeds] for name, of_seeds in runs.items()}


def source_of(grid: Grid) -> str:
    """Return where the corrupted images of a grid's runs come from; they agree."""
    return str(next(iter(grid.values()))[0]["corruption_source"])


def _run(options: Options, name: str, settings: Settings, seed: int, probe: MakeProbe) -> Run:
    config = _config(options, settings, seed, probe)
    return Run(name, seed, config, functools.partial(train_watched, probe))


def _config(options: Options, settings: Settings, seed: int, probe: MakeProbe) -> Config:
    given: dict[str, Any] = {
        "train_size": options.train_size,
        "epochs": options.epochs,
        **options.overrides,
        **settings,
        "seed": seed,
        "device": options.device,
        "data_dir": options.data_dir,
        "threads": 1,
    }
    config = recipe.resolve(options.recipe, **given)
    if config.corruptions == "none":
        raise ValueError("corruptions = none: a study compares Hscores, which need some")
    decides = {k: v for k, v in asdict(config).items() if k not in MACHINE_SETTINGS}
    decides["probe"] = repr(probe)  # a class, or a partial of one and its arguments
    key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
    return replace(config, out=str(options.out / "runs" / f"{config.method}-{seed}-{key}"))

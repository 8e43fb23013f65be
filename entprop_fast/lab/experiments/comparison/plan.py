"""Plan the runs of a comparison: settings, folders, budgets, and which are finished."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from entprop_fast import name_errors
from entprop_fast.lab.experiments.comparison.variants import Variant, options_of
from entprop_fast.lab.experiments.one_run import Run
from entprop_fast.lab.experiments.run_costs import plain_rows, rows_per_epoch
from entprop_fast.lab.training import recipe, run_folder
from entprop_fast.lab.training.augment_setting import NONE, appended, moved_options, read_augment
from entprop_fast.lab.training.config import SETTINGS, Config
from entprop_fast.lab.training.engine import rehearse
from entprop_fast.lab.training.errors import UsageError, bad_input
from entprop_fast.lab.training.method_settings import Value
from entprop_fast.lab.training.run_differences import differences
from entprop_fast.methods import method_options

BUDGETS = ("epochs", "passes")

_IMPORTS = "imports"  # not a setting: functions that the command line names
_NEEDED = ("sa", "ra", "hscore", "cost", "seconds", "corruptions", "train_size")


def resolve_runs(
    source: str | Path,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    overrides: Mapping[str, Value | None],
    *,
    out: str | None = None,
    budget: str = "epochs",
) -> list[Run]:
    """Make a run of every variant with every seed, seed by seed.

    Args:
        source: a recipe's name or path.
        variants: the rows; their own settings go over the flags'.
        seeds: each decides split, initial weights, order and draws of its runs.
        overrides: flags over the recipe; a method's option goes to the methods that have it.
        out: folder of the run folders, ``runs/compare-<dataset>-<arch>`` for None.
        budget: ``epochs``: as the recipe says for all; ``passes``: so many epochs, in whole ones,
            that as many rows go through the network as plain training sends in the recipe's.

    Raises:
        ValueError: settings that do not fit together.
    """
    if budget not in BUDGETS:
        raise name_errors.unknown("budget", budget, BUDGETS)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds must be one or more different numbers, got {list(seeds)}")
    overrides = moved_options(overrides)
    _check_used(variants, overrides)
    configs = {v.name: _config(source, v, seeds[0], overrides) for v in variants}
    _check_rows(configs)
    if budget == "passes":
        for variant in variants:
            if "epochs" in variant.settings:
                raise ValueError(f"{variant.name!r} sets epochs, which --budget passes decides")
            configs[variant.name] = with_plain_passes(configs[variant.name])
    first = configs[variants[0].name]
    name = re.sub(r"[^\w.-]+", "-", f"compare-{first.dataset}-{first.arch}")
    folder = Path(out) if out is not None else Path("runs") / name
    return [
        Run(v.name, seed, replace(configs[v.name], seed=seed, out=str(folder / f"{v.slug}-{seed}")))
        for seed in seeds
        for v in variants
    ]


def with_plain_passes(config: Config) -> Config:
    """Give the run so many epochs that it costs what plain training costs in those of `config`.

    Raises:
        ValueError: that is less than half an epoch.
    """
    trainer = rehearse(config, step=False)
    share = plain_rows(trainer) / rows_per_epoch(trainer)
    epochs = round(config.epochs * share)
    if epochs < 1:
        raise ValueError(
            f"--budget passes leaves {config.method} {config.epochs * share:.2f} epochs: plain "
            f"training needs --epochs {math.floor(0.5 / share) + 1} or more for one of its own"
        )
    decay_every = max(1, round(config.decay_every * share))
    warmup_epochs = min(config.warmup_epochs * share, epochs)
    return replace(config, epochs=epochs, decay_every=decay_every, warmup_epochs=warmup_epochs)


def finished_summary(run: Run) -> dict[str, Any] | None:
    """Return what the run's folder says it scored; None where it is not finished.

    Its ``corruption_source`` is None where the folder does not say, as older ones do not, and where
    it was scored with another choice of ``corruptions`` than the run's.

    Raises:
        UsageError: the folder holds a run of other settings.
    """
    folder = run.folder
    with bad_input():
        if not (folder / run_folder.CONFIG).is_file():
            return None
        saved = recipe.resolve(folder / run_folder.CONFIG)
    if different := differences(run.config, asdict(saved)):
        raise UsageError(
            f"{folder} holds a run of other settings ({'; '.join(different)}): name another --out, "
            "or replace all runs with --overwrite"
        )
    summary = read_summary(folder)
    if summary is not None and saved.corruptions != run.config.corruptions:
        summary["corruption_source"] = None
    return summary


def read_summary(folder: Path) -> dict[str, Any] | None:
    """Read a run folder's summary; None where there is none that can be used."""
    try:
        summary = json.loads((folder / run_folder.SUMMARY).read_text())
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(summary, dict) or not all(name in summary for name in _NEEDED):
        return None
    return {"corruption_source": None} | summary


def _config(
    source: str | Path, variant: Variant, seed: int, overrides: Mapping[str, Value | None]
) -> Config:
    """Put the flags that the variant has over the recipe, and its own settings over those.

    The variant's augmentation comes after that of all.
    """
    had = method_options(variant.method)
    taken = {n: v for n, v in overrides.items() if n in SETTINGS or n in had or n == _IMPORTS}
    given: dict[str, Any] = taken | variant.settings | {"method": variant.method, "seed": seed}
    if variant.augment != NONE:
        of_all = taken.get("augment") or recipe.read_recipe(source).get("augment", NONE)
        given["augment"] = appended(str(of_all), variant.augment)
    try:
        return recipe.resolve(source, **given)
    except ValueError as error:
        if not variant.settings and variant.augment == NONE:
            raise
        raise ValueError(f"{error} (in the row {variant.name!r})") from None


def _check_used(variants: Sequence[Variant], overrides: Mapping[str, Value | None]) -> None:
    """Refuse a flag that no row takes: none has it, or each sets it itself."""
    for name, value in overrides.items():
        if value is None or name in SETTINGS or name == _IMPORTS:
            continue
        if not any(name in method_options(v.method) for v in variants):
            flag, rows = name.replace("_", "-"), ", ".join(v.name for v in variants)
            raise ValueError(f"--{flag} {value}: none of the methods has it ({rows})")
        if all(name in options_of(v) or name not in method_options(v.method) for v in variants):
            raise ValueError(f"--{name.replace('_', '-')} {value}: every row sets {name} itself")


def _check_rows(configs: Mapping[str, Config]) -> None:
    """Refuse two rows that are the same run under two names."""
    earlier: dict[str, Config] = {}
    for name, config in configs.items():
        for other, its in earlier.items():
            # augmix and augmix:severity=3 are the same chain in two spellings.
            if read_augment(config.augment) == read_augment(its.augment):
                its = replace(its, augment=config.augment)
            if not differences(config, asdict(its)):
                raise ValueError(f"--methods: {name!r} and {other!r} are the same settings")
        earlier[name] = config

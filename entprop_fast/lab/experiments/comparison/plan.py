"""The runs of a comparison: settings, folders, budgets, and what is left to do."""

from __future__ import annotations

import gc
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from entprop_fast import name_errors
from entprop_fast.lab.experiments.comparison.variants import Variant, options_of
from entprop_fast.lab.training import recipe, run_folder
from entprop_fast.lab.training.config import SETTINGS, Config, differences
from entprop_fast.lab.training.engine import rehearse
from entprop_fast.lab.training.errors import UsageError, bad_input
from entprop_fast.lab.training.finish import open_suite
from entprop_fast.lab.training.method_settings import Value
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.methods import method_options

BUDGETS = ("epochs", "passes")

_NEEDED = ("sa", "ra", "hscore", "cost", "seconds", "corruptions", "train_size")

Key = tuple[str, int]  # variant, seed


@dataclass(frozen=True)
class Run:
    """One run of a comparison; `config` names its folder."""

    variant: str
    seed: int
    config: Config

    @property
    def key(self) -> Key:
        """What its results are filed under."""
        return self.variant, self.seed


def resolve_runs(
    source: str | Path,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    overrides: Mapping[str, Value | None],
    *,
    out: str | None = None,
    budget: str = "epochs",
) -> list[Run]:
    """Every variant with every seed, seed by seed.

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
    """The settings with so many epochs that the run costs what plain training costs in `config`'s.

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
    return replace(config, epochs=epochs, decay_every=decay_every)


def rows_per_epoch(trainer: Trainer) -> float:
    """Rows that go through the network in an epoch of the run."""
    return sum(rows * trainer.method.cost(rows) for rows in _batches(trainer))


def plain_rows(trainer: Trainer) -> int:
    """The same for plain training."""
    return sum(_batches(trainer))


def passes(config: Config) -> float:
    """Cost of the run in passes over the training images; takes its first step on the way.

    Raises:
        UsageError: whatever the run would refuse.
    """
    capture = "off" if config.capture == "auto" else config.capture  # one step is not worth a graph
    trainer = rehearse(replace(config, capture=capture))
    cost = config.epochs * rows_per_epoch(trainer) / trainer.images.num_train
    if trainer.device.type == "cuda":
        del trainer
        gc.collect()  # a method and its captures refer to each other
        torch.cuda.empty_cache()
    return cost


def corruption_source(config: Config) -> str:
    """Where the corrupted images that the run is scored on would come from; empty for none.

    Raises:
        UsageError: data, or an official set, that is missing or broken.
    """
    trainer = rehearse(config, step=False)
    with bad_input():
        suite = open_suite(trainer)
    return "" if suite is None else suite.source


def finished_summary(run: Run) -> dict[str, Any] | None:
    """What the run's folder says it scored; None where it is not finished.

    Its ``corruption_source`` is None where the folder does not say, as older ones do not, and where
    it was scored with another choice of ``corruptions`` than the run's.

    Raises:
        UsageError: the folder holds a run of other settings.
    """
    folder = Path(run.config.folder)
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
    """A run folder's summary; None where there is none that can be used."""
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
    """The variant's settings: the recipe's, under the flags' that it has, under its own."""
    had = method_options(variant.method)
    taken = {n: v for n, v in overrides.items() if n in SETTINGS or n in had}
    given = taken | variant.settings | {"method": variant.method, "seed": seed}
    try:
        return recipe.resolve(source, **given)
    except ValueError as error:
        if not variant.settings:
            raise
        raise ValueError(f"{error} (in the row {variant.name!r})") from None


def _check_used(variants: Sequence[Variant], overrides: Mapping[str, Value | None]) -> None:
    """Refuse a flag that no row takes: none has it, or each sets it itself."""
    for name, value in overrides.items():
        if value is None or name in SETTINGS:
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
            if not differences(config, asdict(its)):
                raise ValueError(f"--methods: {name!r} and {other!r} are the same settings")
        earlier[name] = config


def _batches(trainer: Trainer) -> list[int]:
    """Rows of each batch of an epoch."""
    loader = trainer.loader
    sizes = [loader.batch_size] * len(loader)
    left = loader.size - loader.batch_size * (len(loader) - 1)
    sizes[-1] = min(loader.batch_size, left)
    return sizes

"""Run a run: one call trains it, evaluates it and writes its folder."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from entprop_fast.lab import checkpoint, data, in_step, job, stopping
from entprop_fast.lab.data import ImageSet
from entprop_fast.lab.data.datasets import EMBEDDED
from entprop_fast.lab.evaluation.metrics import NaNLogits
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.stopping import TimeLimit
from entprop_fast.lab.training import ranks, recipe, run_identity
from entprop_fast.lab.training.allocator import keep_freed_memory
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.device import set_threads
from entprop_fast.lab.training.durations import seconds_of
from entprop_fast.lab.training.errors import RunFailed, Stopped, UsageError, bad_input, fitting
from entprop_fast.lab.training.finish import Summary, finish, open_suite
from entprop_fast.lab.training.loggers import check_ready
from entprop_fast.lab.training.others_folder import written_once
from entprop_fast.lab.training.parts import Parts, parts_of
from entprop_fast.lab.training.run_differences import differences
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.lab.training.user_code import own_images
from entprop_fast.ops.backend import why_reference

__all__ = ["Build", "Summary", "rehearse", "train"]

# From settings, who hears of it, and whether the run begins, to its parts.
Build = Callable[[Config, Reporter, bool], Parts]


def train(
    config: Config,
    *,
    resume: bool = False,
    overwrite: bool = False,
    images: ImageSet | None = None,
    build: Build | None = None,
    folder: RunFolder | None = None,
    reporter: Reporter | None = None,
    watch: Callable[[Trainer], None] | None = None,
    pictures: bool = True,
) -> Summary:
    """Train one run into its folder, evaluate it, and return what ``summary.json`` holds.

    Within `entprop_fast.lab.stopping.StopSignals.installed` a signal is answered between two
    steps, or batches of an evaluation.

    Args:
        config: settings, e.g. from `entprop_fast.lab.training.recipe.resolve`.
        resume: continue the folder's run, bit for bit on the CPU; start one if there is none.
        overwrite: replace a run that the folder holds.
        images: in place of the data set that `config` names.
        build: makes the run's parts, in place of those that `config` names.
        folder: in place of the one that `config` names.
        reporter: says what happens; None says nothing.
        watch: is given the run before its first step, to read what no file of it holds.
        pictures: draw them, too; of a hundred small runs that nobody looks at they are a third of
            the time.

    Raises:
        UsageError: settings, data or folder that cannot be used. The folder is as it was.
        RunFailed: a loss became NaN or infinite; the last good checkpoint stays. `TakenOver`:
            another machine goes on with the run.
        Stopped: a signal came, or (`entprop_fast.lab.stopping.OutOfTime`) the time of `config` is
            over; the checkpoint is saved.
    """
    limit = None if config.time is None else TimeLimit(seconds_of(config.time), config.time)
    with stopping.limited(limit), job.joined(job.of_group()):
        folder = written_once(folder or RunFolder(config.folder))
        reporter = reporter or Reporter.quiet()
        if resume and overwrite:
            raise UsageError(
                "--resume continues a run and --overwrite replaces it: give one of them"
            )
        with folder.held():
            with in_step.together():
                if not resume and not overwrite:
                    folder.check_free()
                folder.claim(reporter.say)
            return _train(
                config,
                folder,
                reporter,
                build or functools.partial(_parts_of_settings, images=images),
                resume=resume,
                watch=watch,
                pictures=pictures,
            )


def _train(
    config: Config,
    folder: RunFolder,
    reporter: Reporter,
    build: Build,
    *,
    resume: bool,
    watch: Callable[[Trainer], None] | None,
    pictures: bool,
) -> Summary:
    here, state = job.current(), None
    with in_step.together():
        if resume and here.is_main:
            state = _saved_state(folder, config, reporter)
    state = here.from_main(state)
    with bad_input():
        check_ready(config.log)
        set_threads(config.threads)
        keep_freed_memory()
        trainer = Trainer(build(config, reporter, state is None), reporter)
        if here.world > 1:
            reporter.say(ranks.sharing(trainer.loader, trainer.device))
        if state is not None:
            _check_same_run(state, trainer, folder)
        stopping.check_together()
        with reporter.waiting("looking at the corrupted images"):
            suite = open_suite(trainer)  # a missing or broken set is no find for the end of a run
    if reason := why_reference(trainer.device.type):
        reporter.say(reason)
    stopping.begin_steps()
    job.expect_progress(seconds_of(config.stall))
    try:
        if state is not None:
            with bad_input():
                if here.is_main:
                    checkpoint.set_corrupt_aside(folder.path)
                trainer.load_state_dict(state)
                folder.begin(recipe.to_toml(config), trainer.rows, fresh=False)
            reporter.say(_place(trainer))
        if watch is not None:
            watch(trainer)
        trainer.fit(folder, fresh=state is None)
        try:
            return finish(trainer, folder, suite, draw=pictures)
        except (OSError, NaNLogits) as error:  # a corrupted set, say, that is there no more
            raise RunFailed(f"{error}; --resume evaluates again") from None
        except Stopped as stopped:
            stopped.saved = f"the run is trained; {stopped.saved or 'its evaluation begins anew'}"
            raise
    finally:
        trainer.loggers.close()
        job.expect_progress(0.0)  # whoever ends first waits for the others


def _place(trainer: Trainer) -> str:
    """Say where a run that is resumed goes on."""
    if trainer.ended:
        return f"trained to its end, {trainer.epoch} epochs: evaluating again"
    return f"continuing at epoch {trainer.epoch + 1} of {trainer.config.epochs}"


def rehearse(config: Config, *, images: ImageSet | None = None, step: bool = True) -> Trainer:
    """Return a run in memory after its first step; it has no folder.

    Args:
        config: the settings.
        images: in place of the data set that `config` names.
        step: take the step, which may refuse what the settings alone do not show.

    Raises:
        UsageError: what `train` refuses before a run begins, its folder apart.
    """
    stopping.check()
    with bad_input():
        quiet = Reporter.quiet()
        parts = parts_of(config, images or _load_data(config, quiet), quiet.say)
        trainer = Trainer(parts, quiet)
        if step:
            with fitting(config.arch, trainer.images.image_shape, config.dataset):
                trainer.method(*next(trainer.loader.epoch(0)))
    return trainer


def _parts_of_settings(
    config: Config, reporter: Reporter, fresh: bool, *, images: ImageSet | None
) -> Parts:
    data_set = images or _load_data(config, reporter)
    stopping.check()
    with reporter.waiting(f"building {config.arch}"):
        return parts_of(config, data_set, reporter.say, fresh=fresh)


def _load_data(config: Config, reporter: Reporter) -> ImageSet:
    # What rank 0 downloads or finds out about files, the others find.
    turns = contextlib.nullcontext() if config.dataset == EMBEDDED else in_step.main_first()
    with reporter.waiting(f"reading data set {config.dataset}"), turns:
        if (given := own_images(config)) is not None:
            return given
        return data.load(
            config.dataset,
            data_dir=config.data_dir,
            train_size=config.train_size,
            test_size=config.test_size,
            seed=config.seed,
            image_size=config.image_size,
            say=reporter.say,
        )


def _saved_state(folder: RunFolder, config: Config, reporter: Reporter) -> dict[str, Any] | None:
    with bad_input():
        state = checkpoint.read_newest(folder.path, reporter.say)
    if state is None:
        reporter.say(f"{folder.path} holds no checkpoint yet: starting anew")
    elif not isinstance(saved := state.get("config", {}), dict):
        raise UsageError(f"the checkpoint in {folder.path} is no run's: config is {saved!r}")
    elif different := differences(config, saved):
        raise UsageError(
            f"the checkpoint in {folder.path} is another run's: {'; '.join(different)}"
        )
    return state


def _check_same_run(state: dict[str, Any], trainer: Trainer, folder: RunFolder) -> None:
    """Refuse a network or images that the checkpoint's run was not trained with.

    Raises:
        ValueError: they differ; the message names what does.
    """
    different = (
        *run_identity.network_differences(trainer.model, state.get("model")),
        *run_identity.differences(trainer.identity, state.get("identity")),
    )
    if different:
        raise ValueError(
            f"the checkpoint in {folder.path} is another run's: {'; '.join(different)}"
        )

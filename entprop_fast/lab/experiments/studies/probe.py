"""Watch a run from inside: what a study measures beyond the run's own files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from entprop_fast.lab.experiments.one_run import Record
from entprop_fast.lab.files import write_json
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.errors import Stopped
from entprop_fast.lab.training.trainer import Trainer

RECORD = "study.json"
STATE = "probe.json"  # what the probe has seen, while the run goes on


class Probe:
    """Watch a run and keep what no file of it holds.

    This one looks at nothing. Others must leave the run as it is: the model in eval mode, and
    random numbers from a generator of their own.
    """

    trainer: Trainer
    kept: Any = None  # what was seen so far, as JSON holds it
    every_step = False  # it looks at steps, not at the ends of epochs

    def attach(self, trainer: Trainer) -> None:
        """Take the run before its first step."""
        self.trainer = trainer

    def after_epoch(self, epoch: int) -> None:
        """Look at the run after `epoch`, counted from 1."""

    def seen(self) -> Any:
        """Return what the record holds of it; asked for once, at the end."""
        return self.kept


MakeProbe = Callable[[], Probe]


class Unwatched(Exception):
    """Refuse a run that has gone further than its probe has seen."""


def train_watched(make: MakeProbe, config: Config, reporter: Reporter) -> Record:
    """Train a run under a probe, from where both stand, and keep its record.

    The record is the summary, the last epoch's gap and training accuracy, and what was seen. A
    run whose probe was left behind begins anew.
    """
    watching = make()
    reporter.after_epochs(lambda epoch: _look(watching, epoch))

    def attach(trainer: Trainer) -> None:
        watching.attach(trainer)
        if trainer.step:
            _catch_up(watching)

    def trained(*, resume: bool) -> Record:
        summary = train(
            config,
            resume=resume,
            overwrite=not resume,
            reporter=reporter,
            watch=attach,
            pictures=False,
        )
        return asdict(summary)

    try:
        try:
            summary = trained(resume=True)
        except Unwatched:
            watching = make()
            (config.folder / STATE).unlink(missing_ok=True)
            summary = trained(resume=False)
    except Stopped:
        if watching.every_step and hasattr(watching, "trainer") and watching.trainer.step:
            _keep(watching)
        raise
    last = watching.trainer.rows[-1]
    seen = {"gap": last["gap"], "train_accuracy": last["train_accuracy"], "seen": watching.seen()}
    write_json(config.folder / RECORD, summary | seen)
    record = read_record(config)  # as later commands read it
    assert record is not None
    return record


def read_record(config: Config) -> Record | None:
    """Read what a finished run left; None where there is nothing that can be used."""
    try:
        record = json.loads((config.folder / RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) and {"seen", "hscore"} <= record.keys() else None


def _look(watching: Probe, epoch: int) -> None:
    watching.after_epoch(epoch)
    _keep(watching)


def _keep(watching: Probe) -> None:
    trainer = watching.trainer
    if watching.kept is not None:
        place = {"epoch": trainer.epoch, "step": trainer.step}
        write_json(trainer.config.folder / STATE, place | {"state": watching.kept})


def _catch_up(watching: Probe) -> None:
    """Load what the probe has seen; look again where the run was killed before it could keep it.

    Raises:
        Unwatched: that is of another step.
    """
    trainer, kept = watching.trainer, {"epoch": 0, "step": 0, "state": watching.kept}
    if watching.kept is None:
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            kept = json.loads((trainer.config.folder / STATE).read_text())
        epoch, step = kept["epoch"], kept["step"]
        if type(kept["state"]) is not type(watching.kept):
            raise TypeError(f"state is {kept['state']!r}")
        watching.kept = kept["state"]
    except (OSError, ValueError, LookupError, TypeError):
        raise Unwatched from None
    if watching.every_step:
        behind = step != trainer.step
    elif trainer.batch == 0 and epoch == trainer.epoch - 1:
        _look(watching, trainer.epoch)
        behind = False
    else:
        behind = epoch != trainer.epoch
    if behind:
        raise Unwatched

"""Train a run in memory: the loop over epochs, what it measures and saves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from entprop_fast.lab import checkpoint, job, stopping
from entprop_fast.lab.job import Pulse
from entprop_fast.lab.report.progress import EPOCH_LEGEND, Reporter
from entprop_fast.lab.training import (
    diagnostics,
    epoch_scores,
    ranks,
    recipe,
    run_record,
    run_state,
)
from entprop_fast.lab.training.best_network import BestNetwork
from entprop_fast.lab.training.epoch_report import EpochReport
from entprop_fast.lab.training.errors import NotFinite, Stopped, bad_input, fitting
from entprop_fast.lab.training.loggers import Loggers
from entprop_fast.lab.training.meter import Meter
from entprop_fast.lab.training.optim import set_learning_rate
from entprop_fast.lab.training.parts import Parts
from entprop_fast.lab.training.rollback import Rollbacks
from entprop_fast.lab.training.run_folder import Row, RunFolder, last_good_named
from entprop_fast.lab.training.saver import Saver


class Trainer:
    """Hold a run in memory. All that decides its next step is in `state_dict`.

    Args:
        parts: what it is made of.
        reporter: is told about epochs and what goes wrong in them.
    """

    def __init__(self, parts: Parts, reporter: Reporter) -> None:
        self.config, self.reporter = parts.config, reporter
        self.device, self.images, self.spec = parts.device, parts.images, parts.spec
        self.model, self.loader, self.test = parts.model, parts.loader, parts.test
        self.method_options, self.method = parts.method_options, parts.method
        self.optimizer, self._lr = parts.optimizer, parts.learning_rate
        self.accumulation, self.average = parts.accumulation, parts.average
        self.validation, self.identity = parts.validation, parts.identity
        self.best = BestNetwork(parts.config.patience) if parts.validation else None
        log = parts.config.log if job.current().is_main else None
        self.loggers = Loggers(log, asdict(parts.config))
        self.saver = Saver(parts.config, parts.spec)
        self.rollbacks = Rollbacks(allowed=parts.config.on_nan == "rollback")
        self._pulse = Pulse()
        self.epoch = 0  # the running one, from 0
        self.batch = 0  # its next batch
        self.meter = Meter()
        self.rows: list[Row] = []
        self.train_seconds = 0.0  # in steps, of the running epoch
        self._report = EpochReport(reporter, self.config.epochs)
        self.seconds_before = 0.0
        self.started = time.monotonic()

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.config.epochs * self.accumulation.steps

    @property
    def step(self) -> int:
        """The next step of the run, from 0."""
        return self.epoch * self.accumulation.steps + self.accumulation.steps_within(self.batch)

    def step_of(self, batch: int) -> int:
        """Return the step, from 1, that a batch of the running epoch is part of."""
        within = self.accumulation.steps_within(batch + 1)
        return self.epoch * self.accumulation.steps + within

    @property
    def seconds(self) -> float:
        """Time since the run began, without that between its sessions."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def captured(self) -> bool:
        """Whether steps of this session were replays of a CUDA graph."""
        return self.method.captures.replays > 0

    @property
    def evaluated(self) -> nn.Module:
        """The network that counts after an epoch: the averaged one, or the one that is trained."""
        return self.model if self.average is None else self.average.read()

    @property
    def ended(self) -> bool:
        """Whether the run is trained to its end."""
        waited = self.best is not None and self.best.out_of_patience(self.epoch)
        return waited or self.epoch >= self.config.epochs

    def deployed(self) -> nn.Module:
        """Return the network that the run is for: the best on held-out images where there are."""
        if self.best is not None and self.best.epoch:
            return self.best.network(self.model)
        return self.evaluated

    @property
    def networks(self) -> list[nn.Module]:
        """The network that is trained, and the averaged one."""
        return [self.model, *([] if self.average is None else [self.average.model])]

    def fit(self, folder: RunFolder, *, fresh: bool) -> None:
        """Train what is left of the run, saving a checkpoint after every epoch and on a signal."""
        with last_good_named(folder), self.saver.open(folder):
            if fresh:
                self._first_step(folder)
            self._begin_files(folder)
            if not self.ended:
                self.reporter.say(EPOCH_LEGEND)
                if self.validation is not None:
                    self.reporter.say(self.validation.legend())
            stopping.begin_steps()
            self._report.begin(self.epoch)
            epochs, done = self.config.epochs, self.step
            with (
                self.reporter.training(epochs=epochs, steps=self.steps, done=done),
                self._saved_when_stopped(folder),
            ):
                while not self.ended:
                    try:
                        self._run_epoch()
                        self._end_epoch(folder)
                    except NotFinite as error:
                        self._roll_back(error, folder)
            if self.best is not None:
                self.reporter.say(self.best.said(self.epoch))

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, and its record so far."""
        return run_state.state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, on the same kind of device or another.

        Raises:
            ValueError: the state is not one of this version's.
        """
        run_state.put_back(self, state)

    def _first_step(self, folder: RunFolder) -> None:
        """Take the step that may refuse settings or data; then make the folder the run's."""
        stopping.check()
        started = time.monotonic()
        fit = fitting(self.config.arch, self.images.image_shape, self.config.dataset)
        with self.reporter.waiting("the first step"), bad_input(), fit:
            self._train_batch(*next(self.loader.epoch(0)))
        self.train_seconds = time.monotonic() - started
        folder.begin(recipe.to_toml(self.config), fresh=True)
        job.remember(folder.known_as)
        if self.rollbacks.allowed:
            self._save()  # something to go back to

    def _begin_files(self, folder: RunFolder) -> None:
        """Open the logs; a run that was killed may lack its last row and its best network there."""
        self.loggers.open(folder.path, self.rows)
        self.saver.keep_best(self.best)

    def _run_epoch(self) -> None:
        """Train what is left of the running epoch."""
        started = time.monotonic() - self.train_seconds
        try:
            stopping.check_together()
            for images, labels in job.over(self.loader.epoch(self.epoch, self.batch)):
                if self.rollbacks.skips(self.step_of(self.batch)):
                    self.batch += 1
                    continue
                with bad_input():
                    full = self._train_batch(images, labels)
                self._between_steps(full, started)
            self.meter.read()
        finally:
            self.train_seconds = time.monotonic() - started

    def _between_steps(self, full: bool, started: float) -> None:
        """Read results, save or stop, in all processes at the same step, if one wishes so."""
        if not self.accumulation.whole(self.batch):  # a checkpoint has no gradients
            return
        told = self._pulse.turn(full, *stopping.wishes()) or [False, 0, False]
        if told[0]:
            self._tell(time.monotonic() - started)
        if self.saver.due(self.step):
            self.train_seconds = time.monotonic() - started
            self._save(needed=False)
        stopping.stop(*told[1:])

    def _train_batch(self, images: Tensor, labels: Tensor) -> bool:
        """Take one step, or what a batch is of it; return whether the results are to be read."""
        if self.accumulation.begins(self.batch):
            set_learning_rate(self.optimizer, self._lr(self.step))
        result = self.accumulation.take(self.batch, images, labels)
        self.batch += 1
        if self.average is not None and self.accumulation.whole(self.batch):
            self.average.update()
        return self.meter.add(self.step, len(labels), result, *self.method.last_batch)

    def _end_epoch(self, folder: RunFolder) -> None:
        """Measure the epoch, begin to save, and report."""
        self._check_finite()
        with ranks.same_statistics(self.networks, self.config):
            row = job.current().from_main(self._row())
            better = self.best is not None and self.best.offer(
                self.epoch + 1, row["validation_hscore"], self.evaluated
            )
        self.rows.append(row)
        row["signatures"] = diagnostics.detect(
            self.rows, epochs=self.config.epochs, num_classes=self.spec.num_classes
        )
        self._tell(self.train_seconds)
        self.epoch, self.batch = self.epoch + 1, 0
        self.meter, self.train_seconds = Meter(), 0.0
        self._save(best=self.best if better else None)
        folder.append_row(row)
        self.loggers.write(row)
        self._report.ended(row, self.epoch, self.method.captures.replays)

    def _tell(self, seconds: float) -> None:
        """Report how far the run is, `seconds` of training into the epoch."""
        self.meter.read()
        self.reporter.steps_done(
            self.step,
            epoch=self.epoch + 1,
            loss=self.meter.mean("loss"),
            images_per_second=job.current().world * self.meter.images / seconds,
        )

    def _row(self) -> Row:
        """Measure the epoch that ends: its losses and both accuracies."""
        network, meter = self.evaluated, self.meter.of_all()
        train_accuracy, sa = epoch_scores.accuracies(
            network, self.loader, self.test, self.images, self.reporter
        )
        return {
            "epoch": self.epoch + 1,
            "step": self.step,
            **meter.means(),
            "train_accuracy": train_accuracy,
            "sa": sa,
            "gap": train_accuracy - sa,
            **epoch_scores.held_out(network, self.validation, self.reporter),
            **({"rollbacks": self.rollbacks.count} if self.rollbacks.allowed else {}),
            "lr": self._lr(self.step - 1),
            "images_per_second": meter.images / self.train_seconds,
            "train_seconds": self.train_seconds,
            "seconds": self.seconds,
        }

    @contextlib.contextmanager
    def _saved_when_stopped(self, folder: RunFolder) -> Iterator[None]:
        try:
            yield
        except Stopped as stopped:
            try:
                self._save(at_once=True)
            except NotFinite as error:  # the newest checkpoint is what there is to go on with
                self._roll_back(error, folder)
            kept = folder / checkpoint.CURRENT
            stopped.saved = f"step {self.step} of {self.steps} is saved in {kept}"
            raise

    def _save(self, **how: Any) -> None:
        """Save a good state only: a loss may still be finite when the weights no longer are."""
        self.meter.read()
        self._check_finite()
        ranks.settle_statistics(self.networks, self.config)
        self.saver.save(self.state_dict, **how)

    def _roll_back(self, error: NotFinite, folder: RunFolder) -> None:
        """Go back to the newest checkpoint, or raise `error`."""
        state = self.saver.newest(self.reporter.say) if self.rollbacks.allowed else None
        if state is None:
            raise error
        self.load_state_dict(state)
        self.method.captures.forget()  # it read the optimiser's old state
        folder.write_rows(self.rows)
        self.reporter.say(self.rollbacks.take(error, self.step))

    def _check_finite(self) -> None:
        run_record.check_finite(self.model.state_dict(), self.step)

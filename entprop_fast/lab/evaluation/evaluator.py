"""Take the measurements of `evaluate_model`, one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entprop_fast.eval_mode import evaluating
from entprop_fast.lab.corruptions.suites import Sample, Suite
from entprop_fast.lab.data import ImageSet, channels_last, natural_sets, shift_sets
from entprop_fast.lab.data.natural_sets import NaturalSet
from entprop_fast.lab.evaluation import attacks, corrupted_result, intervals
from entprop_fast.lab.evaluation.choose_suite import choose_suite
from entprop_fast.lab.evaluation.evaluation_options import EvaluationOptions
from entprop_fast.lab.evaluation.evaluation_result import Evaluation, Row
from entprop_fast.lab.evaluation.running_metrics import CorruptionMetrics, RunningMetrics
from entprop_fast.lab.evaluation.saved_counts import EvaluationCounts, SavedCounts, key_of
from entprop_fast.lab.evaluation.scored_network import Scored
from entprop_fast.lab.in_step import together
from entprop_fast.lab.job import current
from entprop_fast.lab.report.observer import Measured
from entprop_fast.layers import route

Batches = Iterator[tuple[Tensor, Tensor]]  # images, labels
# From the number of a batch's first image, its images and labels to logits, or to attacked images
Answers = Callable[[int, Tensor, Tensor], Tensor]


@dataclass
class Evaluator:
    """Measures one network on one data set; `evaluate_model` explains the arguments."""

    model: Scored
    data: ImageSet
    options: EvaluationOptions
    batch_size: int
    workers: int | None
    say: Callable[[str], None]
    kept: SavedCounts | None
    progress: Callable[[Measured], None]
    suite: Suite | None = None  # opened before

    def __post_init__(self) -> None:
        if not self.data.num_test:
            raise ValueError("data holds no test image; at least one is needed")
        self.device = self.model.device

    def run(self, name: str) -> Evaluation:
        """Measure everything; the result calls the network `name`."""
        # Missing and broken files are found before anything is computed.
        if self.options.autoattack:
            attacks.autoattack_parts(self.data.num_classes)
        with together():
            suite = self.suite or choose_suite(
                self.data,
                self.options,
                self.device,
                batch_size=self.batch_size,
                workers=self.workers,
                say=self.say,
            )
            natural = [
                natural_sets.open_natural(
                    one,
                    Path(self.options.official_dir or ""),
                    self.data.class_names,
                    self.data.image_shape[1],
                    self.batch_size,
                    workers=self.workers,
                )
                for one in self.options.also
            ]
            shifts = shift_sets.open_shifts(
                self.options.shift, self.data, self.batch_size, workers=self.workers
            )
        self.counts = self._counts(suite, [*natural, *shifts])
        aux = self.options.norms == "aux"
        routed = route(self.model, "aux") if aux else contextlib.nullcontext()
        with routed, evaluating(self.model):
            self.say("clean images")
            clean = self._counted(
                "clean",
                self.data.num_test,
                self._starts,
                self._batches,
                self._answers,
                shown="clean images",
            )
            clean.check("clean test images")
            labels = self.data.test_labels.to(self.device)
            rows = [self._row("clean", f"{self.data.name} test set", clean)]
            found = self._corrupted(suite, clean, labels, rows) if suite else {}
            rows += [self._on_natural(one) for one in natural]
            shifted = {one.title: self._on_natural(one) for one in shifts}
            rows += shifted.values()
            rows += self._attacked()
        return Evaluation(
            name=name,
            dataset=self.data.name,
            norms=self.options.norms,
            sa=rows[0].accuracy,
            rows=rows,
            shifts={name: _shift(row, rows[0].accuracy) for name, row in shifted.items()},
            **found,
        )

    def _counts(self, suite: Suite | None, further: Sequence[NaturalSet]) -> EvaluationCounts:
        """Open the counts of this network's images, from a file on where a stop left one."""
        if self.kept is None:
            return EvaluationCounts()
        settings = {
            **asdict(self.options),
            "batch_size": self.batch_size,
            "device": self.device.type,
            "suite": suite and [suite.source, suite.images, suite.kinds, suite.extra],
            "read_from": suite and suite.read_from,
            "further": [(one.title, one.images, one.source, one.state()) for one in further],
        }
        return self.kept.counts(key_of(self.model, self.data, settings))

    @property
    def _starts(self) -> Sequence[int]:
        return self.data.test_starts(self.batch_size)

    def _batches(self, starts: Sequence[int]) -> Batches:
        return self.data.test_batches(self.batch_size, workers=self.workers, starts=starts)

    @torch.no_grad()
    def _counted(
        self,
        phase: str,
        images: int,
        starts: Sequence[int],
        batches: Callable[[Sequence[int]], Batches],
        answers: Answers,
        *,
        shown: str = "",
        classes: Tensor | None = None,
    ) -> RunningMetrics:
        """Count the network's answers to the batches of a phase that are not counted yet."""
        metrics = RunningMetrics(images, self.device, classes)
        counted = self.counts.begin(phase, {"": metrics})
        own = current().share([first for first in starts if not counted("", first)])

        def add(batch: tuple[int, tuple[Tensor, Tensor]]) -> int:
            first, (shown, labels) = batch
            shown, labels = channels_last(shown.to(self.device)), labels.to(self.device)
            metrics.add(first, answers(first, shown, labels), labels)
            return len(labels)

        self.counts.work_through(
            zip(own, batches(own), strict=True),
            add,
            lambda done: self.progress(Measured(shown or phase, done, images)),
        )
        return metrics

    def _answers(self, first: int, images: Tensor, labels: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        if logits.shape[1] < self.data.num_classes:  # some answers could never be right
            raise ValueError(
                f"the network gives {logits.shape[1]} logits, and the labels of "
                f"{self.data.name} are of {self.data.num_classes} classes"
            )
        return logits

    @torch.no_grad()
    def _corrupted(
        self, suite: Suite, clean: RunningMetrics, labels: Tensor, rows: list[Row]
    ) -> dict[str, Any]:
        self.say(f"{suite.name}: {suite.source}")
        metrics = CorruptionMetrics(suite, self.device)
        every = metrics.named()
        kinds, kind = list(metrics.of_kind), ""

        def add(sample: Sample) -> int:
            nonlocal kind
            kind, severity, first = sample.place
            wanted = sample.labels.to(self.device)
            if suite.aligned and not torch.equal(wanted, labels[first : first + len(wanted)]):
                raise ValueError(
                    f"the labels of {suite.name} are not those of {self.data.name}'s test images "
                    f"{first} ... {first + len(wanted) - 1}: it was made from others"
                )
            logits = self.model(channels_last(sample.images.to(self.device)))
            every[f"{kind} {severity}"].add(first, logits, wanted)
            return len(wanted)

        def progress(done: int) -> None:
            place = f"{kind}, kind {kinds.index(kind) + 1} of {len(kinds)}" if kind else ""
            self.progress(Measured("corruptions", done, len(every) * suite.images, place))

        counted = self.counts.begin("corrupted", every)
        left = [at for at in suite.places if not counted(f"{at.kind} {at.severity}", at.first)]
        self.counts.work_through(suite.samples(suite.dealt(left)), add, progress)
        row, found = corrupted_result.of(suite, metrics, clean, self.data)
        rows.append(row)
        return found

    def _on_natural(self, one: NaturalSet) -> Row:
        title = f"shift {one.title}" if one.source else one.title
        self.say(title)
        classes = None if one.classes is None else one.classes.to(self.device)
        metrics = self._counted(
            title,
            one.images,
            range(0, one.images, self.batch_size),
            one.batches,
            self._answers,
            classes=classes,
        )
        source = one.source or f"official {one.title}"
        return self._row(title, source, metrics, note=one.note)

    def _attacked(self) -> Iterator[Row]:
        options = self.options
        wanted: dict[str, Answers] = {}
        more: dict[str, str] = {}  # to be said of one of them
        if options.pgd:
            name = f"PGD-{options.pgd}, eps {_units(options.eps)}, alpha {_units(options.alpha)}"
            wanted[name] = lambda first, images, labels: attacks.pgd(
                self.model,
                images,
                labels,
                steps=options.pgd,
                eps=options.eps,
                alpha=options.alpha,
                seed=options.seed,
                first=first,
            )
        if options.autoattack:
            auto = f"AutoAttack, eps {_units(options.eps)}"
            with torch.no_grad():
                images, _ = next(self._batches([0]))
                one = channels_last(images[:1].to(self.device))
                more[auto] = attacks.autoattack_note(self.model(one).shape[1])
            wanted[auto] = lambda first, images, labels: attacks.autoattack(
                self.model, images, labels, eps=options.eps, seed=options.seed
            )
        for name, attack in wanted.items():
            yield self._under_attack(name, attack, more.get(name, ""))

    def _under_attack(self, name: str, attack: Answers, more: str) -> Row:
        def answers(first: int, images: Tensor, labels: Tensor) -> Tensor:
            with torch.enable_grad():
                attacked = attack(first, images, labels)
            logits: Tensor = self.model(attacked)
            return logits

        self.say(f"{name}, through the {self.options.norms} norms")
        metrics = self._counted(name, self.data.num_test, self._starts, self._batches, answers)
        source = f"{self.data.name} test set, attacked through the {self.options.norms} norms"
        note = f"{attacks.NO_DEFENCE} {more}".strip()
        return self._row(name, source, metrics, note=note, calibrated=False)

    def _row(
        self,
        test: str,
        source: str,
        metrics: RunningMetrics,
        *,
        note: str = "",
        calibrated: bool = True,
    ) -> Row:
        metrics.check(f"images of {test}")
        low, high = intervals.wilson(metrics.correct, metrics.total)
        return Row(
            test=test,
            source=source,
            accuracy=100 * (metrics.correct / metrics.total),
            low=100 * low,
            high=100 * high,
            interval="Wilson",
            ece=100 * metrics.ece if calibrated else None,
            images=metrics.total,
            note=note,
        )


def _shift(row: Row, clean: float) -> dict[str, float]:
    return {
        "accuracy": row.accuracy,
        "ece": row.ece or 0.0,
        "drop": clean - row.accuracy,
        "images": row.images,
    }


def _units(value: float) -> str:
    """Write image units as a fraction of 255 where they are a whole or half one."""
    levels = round(2 * value * 255) / 2
    return f"{levels:g}/255" if abs(levels - value * 255) < 1e-9 else f"{value:g}"

"""The measurements of `evaluate_model`, one after the other."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entprop_fast.eval_mode import evaluating
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.suites import Suite
from entprop_fast.lab.data import ImageSet, channels_last, class_folders
from entprop_fast.lab.data.readers import processes
from entprop_fast.lab.evaluation import attacks, intervals
from entprop_fast.lab.evaluation.choose_suite import choose_suite, usual_batch_size
from entprop_fast.lab.evaluation.corruption_error import corruption_errors
from entprop_fast.lab.evaluation.evaluation_options import EvaluationOptions
from entprop_fast.lab.evaluation.evaluation_result import Evaluation, Row
from entprop_fast.lab.evaluation.kept_counts import Counts, Kept, key_of
from entprop_fast.lab.evaluation.metrics import hscore
from entprop_fast.lab.evaluation.running_metrics import Tally
from entprop_fast.lab.evaluation.scored_network import Scored
from entprop_fast.lab.report.observer import Measured
from entprop_fast.layers import route


class Evaluator:
    """One network on one data set; `evaluate_model` explains the arguments."""

    def __init__(
        self,
        model: Scored,
        data: ImageSet,
        options: EvaluationOptions,
        *,
        batch_size: int | None,
        workers: int | None,
        say: Callable[[str], None] | None,
        kept: Kept | None,
        progress: Callable[[Measured], None] | None,
    ) -> None:
        self.model, self.data, self.options, self.kept = model, data, options, kept
        self.say, self.progress = say or _silent, progress or _silent
        self.workers = workers
        self.batch_size = usual_batch_size(data) if batch_size is None else batch_size
        if self.batch_size < 1:
            raise ValueError(f"batch_size = {self.batch_size} must be at least 1")
        processes(workers)  # a number that cannot be is refused here
        if not data.num_test:
            raise ValueError("data holds no test image; at least one is needed")
        self.device = model.device
        self.folder = None if options.official_dir is None else Path(options.official_dir)

    def run(self, name: str) -> Evaluation:
        """Measure everything; the result calls the network `name`."""
        # Missing and broken files are found before anything is computed.
        if self.options.autoattack:
            attacks.autoattack_parts(self.data.num_classes)
        suite = choose_suite(
            self.data,
            self.options,
            self.device,
            batch_size=self.batch_size,
            workers=self.workers,
            say=self.say,
        )
        natural = [self._natural(one) for one in self.options.also]
        self.counts = self._counts(suite)
        aux = self.options.norms == "aux"
        routed = route(self.model, "aux") if aux else contextlib.nullcontext()
        with routed, evaluating(self.model):
            clean, labels = self._clean(), self.data.test_labels.to(self.device)
            rows = [self._row("clean", f"{self.data.name} test set", clean)]
            found = self._corrupted(suite, clean, labels, rows) if suite else {}
            for one in natural:
                rows.append(self._on_natural(one))
            rows += self._attacked()
        return Evaluation(
            name=name,
            dataset=self.data.name,
            norms=self.options.norms,
            sa=rows[0].accuracy,
            rows=rows,
            **found,
        )

    def _natural(self, name: str) -> class_folders.NaturalSet:
        assert self.folder is not None
        size = self.data.image_shape[1]
        return class_folders.open_natural(
            name,
            self.folder,
            self.data.class_names,
            size,
            self.batch_size,
            workers=self.workers,
        )

    def _counts(self, suite: Suite | None) -> Counts:
        """Open the counts of this network's images, from a file on where a stop left one."""
        if self.kept is None:
            return Counts(None, self.say)
        settings = {
            **asdict(self.options),
            "batch_size": self.batch_size,
            "device": self.device.type,
            "suite": suite and [suite.source, suite.images, suite.kinds, suite.extra],
            "read_from": suite and suite.read_from,
        }
        return self.kept.counts(key_of(self.model, self.data, settings))

    def _batches(self, skip: int = 0) -> Iterator[tuple[int, Tensor, Tensor]]:
        first = skip * self.batch_size
        read = self.data.test_batches(self.batch_size, workers=self.workers)
        for images, labels in itertools.islice(read, skip, None):
            yield first, channels_last(images.to(self.device)), labels.to(self.device)
            first += len(labels)

    @torch.no_grad()
    def _clean(self) -> Tally:
        self.say("clean images")
        tally = Tally(self.data.num_test, self.device)
        for first, images, wanted in self.counts.counted("clean", {"": tally}, self._batches):
            logits = self.model(images)
            if logits.shape[1] < self.data.num_classes:  # some answers could never be right
                raise ValueError(
                    f"the network gives {logits.shape[1]} logits, and the labels of "
                    f"{self.data.name} are of {self.data.num_classes} classes"
                )
            tally.add(first, logits, wanted)
            self.progress(Measured("clean images", tally.total, self.data.num_test))
        tally.check("clean test images")
        return tally

    @torch.no_grad()
    def _corrupted(
        self, suite: Suite, clean: Tally, labels: Tensor, rows: list[Row]
    ) -> dict[str, Any]:
        self.say(f"{suite.name}: {suite.source}")
        tallies: dict[str, list[Tally]] = {
            kind: [Tally(suite.images, self.device) for _ in SEVERITIES]
            for kind in (*suite.kinds, *suite.extra)
        }
        every = {
            f"{kind} {severity}": tally
            for kind, each in tallies.items()
            for severity, tally in zip(SEVERITIES, each, strict=True)
        }
        for kind, severity, first, images, wanted in self.counts.counted(
            "corrupted", every, lambda skip: suite.samples(skip=skip)
        ):
            wanted = wanted.to(self.device)
            if suite.aligned and not torch.equal(wanted, labels[first : first + len(wanted)]):
                raise ValueError(
                    f"the labels of {suite.name} are not those of {self.data.name}'s test images "
                    f"{first} ... {first + len(wanted) - 1}: it was made from others"
                )
            logits = self.model(channels_last(images.to(self.device)))
            tallies[kind][severity - 1].add(first, logits, wanted)
            self.progress(_of_kind(kind, tallies, suite.images))
        for kind, severities in tallies.items():
            for severity, tally in enumerate(severities, start=1):
                tally.check(f"images of {kind}, severity {severity}")
        shares = {
            kind: [tally.correct / tally.total for tally in severities]
            for kind, severities in tallies.items()
        }
        counted = [tally for kind in suite.kinds for tally in tallies[kind]]
        values = [value for kind in suite.kinds for value in shares[kind]]
        ra, sa = sum(values) / len(values), clean.correct / clean.total
        by_image = torch.stack([tally.right for tally in counted]).cpu().double().mean(dim=0)
        low, high = intervals.mean_by_image(by_image)
        calibration = sum(tally.ece for tally in counted) / len(counted)
        rows.append(
            Row(
                test=f"corrupted, mean of {len(suite.kinds)} x 5",
                source=suite.source,
                accuracy=100 * ra,
                low=100 * low,
                high=100 * high,
                interval="normal, by image",
                ece=100 * calibration,
                images=suite.images,
            )
        )
        spread = None
        if suite.aligned:
            bounds = intervals.hscore_by_image(clean.right.cpu().double(), by_image)
            spread = (100 * bounds.low, 100 * bounds.high)
        errors: dict[str, float] = {}
        mce = None
        if suite.official and self.data.official_corruptions == "imagenet-c":
            errors, mce = corruption_errors({kind: shares[kind] for kind in suite.kinds})
        percent = {kind: [100 * one for one in each] for kind, each in shares.items()}
        return {
            "ra": 100 * ra,
            "hscore": 100 * hscore(sa, ra),
            "hscore_interval": spread,
            "corruptions": {kind: percent[kind] for kind in suite.kinds},
            "extra": {kind: percent[kind] for kind in suite.extra},
            "corruption_source": suite.source,
            "corruption_ece": 100 * calibration,
            "mce": mce,
            "ce": errors,
        }

    @torch.no_grad()
    def _on_natural(self, one: class_folders.NaturalSet) -> Row:
        self.say(one.title)
        classes = None if one.classes is None else one.classes.to(self.device)
        tally = Tally(one.images, self.device, classes)

        def batches(skip: int) -> Iterator[tuple[int, Tensor, Tensor]]:
            first = skip * self.batch_size
            for images, labels in itertools.islice(one.batches(), skip, None):
                yield first, images.to(self.device), labels.to(self.device)
                first += len(labels)

        for first, images, labels in self.counts.counted(one.title, {"": tally}, batches):
            tally.add(first, self.model(channels_last(images)), labels)
            self.progress(Measured(one.title, tally.total, one.images))
        note = "" if classes is None else f"among the set's {len(classes)} classes"
        return self._row(one.title, f"official {one.title}", tally, note=note)

    def _attacked(self) -> Iterator[Row]:
        options = self.options
        wanted: dict[str, Callable[[int, Tensor, Tensor], Tensor]] = {}
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
                _, images, _ = next(self._batches())
                more[auto] = attacks.autoattack_note(self.model(images[:1]).shape[1])
            wanted[auto] = lambda first, images, labels: attacks.autoattack(
                self.model, images, labels, eps=options.eps, seed=options.seed
            )
        for name, attack in wanted.items():
            self.say(f"{name}, through the {options.norms} norms")
            tally = Tally(self.data.num_test, self.device)
            for first, images, labels in self.counts.counted(name, {"": tally}, self._batches):
                attacked = attack(first, images, labels)
                with torch.no_grad():
                    tally.add(first, self.model(attacked), labels)
                self.progress(Measured(name, tally.total, self.data.num_test))
            source = f"{self.data.name} test set, attacked through the {options.norms} norms"
            note = f"{attacks.NO_DEFENCE} {more.get(name, '')}".strip()
            yield self._row(name, source, tally, note=note, calibrated=False)

    def _row(
        self, test: str, source: str, tally: Tally, *, note: str = "", calibrated: bool = True
    ) -> Row:
        tally.check(f"images of {test}")
        low, high = intervals.wilson(tally.correct, tally.total)
        return Row(
            test=test,
            source=source,
            accuracy=100 * (tally.correct / tally.total),
            low=100 * low,
            high=100 * high,
            interval="Wilson",
            ece=100 * tally.ece if calibrated else None,
            images=tally.total,
            note=note,
        )


def _units(value: float) -> str:
    """An image unit as a fraction of 255 where it is a whole or half one."""
    levels = round(2 * value * 255) / 2
    return f"{levels:g}/255" if abs(levels - value * 255) < 1e-9 else f"{value:g}"


def _of_kind(kind: str, tallies: Mapping[str, Sequence[Tally]], images: int) -> Measured:
    every = [tally for severities in tallies.values() for tally in severities]
    place = f"{kind}, kind {list(tallies).index(kind) + 1} of {len(tallies)}"
    return Measured("corruptions", sum(one.total for one in every), len(every) * images, place)


def _silent(what: object) -> None:
    return None

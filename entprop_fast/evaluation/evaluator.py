"""The measurements of `evaluate_model`, one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entprop_fast.data import SEVERITIES, ImageSet, channels_last
from entprop_fast.data.prefetch import MOST_PROCESSES
from entprop_fast.evaluation import attacks, folders, intervals
from entprop_fast.evaluation.choose import choose_suite, usual_batch_size
from entprop_fast.evaluation.corruption_error import corruption_errors
from entprop_fast.evaluation.network import Scored
from entprop_fast.evaluation.options import EvaluationOptions
from entprop_fast.evaluation.results import Evaluation, Row
from entprop_fast.evaluation.suites import Suite
from entprop_fast.evaluation.tally import Tally
from entprop_fast.layers import route
from entprop_fast.metrics import hscore
from entprop_fast.modes import evaluating


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
    ) -> None:
        self.model, self.data, self.options = model, data, options
        self.say = say or _silent
        self.workers = workers
        self.batch_size = usual_batch_size(data) if batch_size is None else batch_size
        if self.batch_size < 1:
            raise ValueError(f"batch_size = {self.batch_size} must be at least 1")
        if workers is not None and not 0 <= workers <= MOST_PROCESSES:
            raise ValueError(f"workers = {workers} must be at least 0, at most {MOST_PROCESSES}")
        if not data.num_test:
            raise ValueError("data holds no test image; at least one is needed")
        self.device = model.device
        self.folder = None if options.official_dir is None else Path(options.official_dir)

    def run(self, name: str) -> Evaluation:
        """Measure everything; the result calls the network `name`."""
        # Missing and broken files are found before anything is computed.
        suite = choose_suite(
            self.data,
            self.options,
            self.device,
            batch_size=self.batch_size,
            workers=self.workers,
            say=self.say,
        )
        natural = [self._natural(one) for one in self.options.also]
        aux = self.options.norms == "aux"
        routed = route(self.model, "aux") if aux else contextlib.nullcontext()
        with routed, evaluating(self.model):
            clean, labels = self._clean()
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

    def _natural(self, name: str) -> folders.NaturalSet:
        assert self.folder is not None
        size = self.data.image_shape[1]
        return folders.open_natural(
            name,
            self.folder,
            self.data.class_names,
            size,
            self.batch_size,
            workers=self.workers,
        )

    def _batches(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        first = 0
        for images, labels in self.data.test_batches(self.batch_size, workers=self.workers):
            yield first, channels_last(images.to(self.device)), labels.to(self.device)
            first += len(labels)

    @torch.no_grad()
    def _clean(self) -> tuple[Tally, Tensor]:
        self.say("clean images")
        tally, labels = Tally(self.data.num_test, self.device), []
        for first, images, wanted in self._batches():
            logits = self.model(images)
            if logits.shape[1] < self.data.num_classes:  # some answers could never be right
                raise ValueError(
                    f"the network gives {logits.shape[1]} logits, and the labels of "
                    f"{self.data.name} are of {self.data.num_classes} classes"
                )
            tally.add(first, logits, wanted)
            labels.append(wanted)
        tally.check("clean test images")
        return tally, torch.cat(labels)

    @torch.no_grad()
    def _corrupted(
        self, suite: Suite, clean: Tally, labels: Tensor, rows: list[Row]
    ) -> dict[str, Any]:
        self.say(f"{suite.name}: {suite.source}")
        tallies: dict[str, list[Tally]] = {
            kind: [Tally(suite.images, self.device) for _ in SEVERITIES]
            for kind in (*suite.kinds, *suite.extra)
        }
        for kind, severity, first, images, wanted in suite.samples():
            wanted = wanted.to(self.device)
            if suite.aligned and not torch.equal(wanted, labels[first : first + len(wanted)]):
                raise ValueError(
                    f"the labels of {suite.name} are not those of {self.data.name}'s test images "
                    f"{first} ... {first + len(wanted) - 1}: it was made from others"
                )
            logits = self.model(channels_last(images.to(self.device)))
            tallies[kind][severity - 1].add(first, logits, wanted)
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
        by_image = torch.stack([tally.right for tally in counted]).double().mean(dim=0).cpu()
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
            bounds = intervals.hscore_by_image(clean.right.double().cpu(), by_image)
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
    def _on_natural(self, one: folders.NaturalSet) -> Row:
        self.say(one.title)
        classes = None if one.classes is None else one.classes.to(self.device)
        tally, first = Tally(one.images, self.device, classes), 0
        for images, labels in one.batches():
            logits = self.model(channels_last(images.to(self.device)))
            tally.add(first, logits, labels.to(self.device))
            first += len(labels)
        note = "" if classes is None else f"among the set's {len(classes)} classes"
        return self._row(one.title, f"official {one.title}", tally, note=note)

    def _attacked(self) -> Iterator[Row]:
        options = self.options
        wanted: dict[str, Callable[[int, Tensor, Tensor], Tensor]] = {}
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
            wanted[f"AutoAttack, eps {_units(options.eps)}"] = lambda first, images, labels: (
                attacks.autoattack(self.model, images, labels, eps=options.eps, seed=options.seed)
            )
        for name, attack in wanted.items():
            self.say(f"{name}, through the {options.norms} norms")
            tally = Tally(self.data.num_test, self.device)
            for first, images, labels in self._batches():
                attacked = attack(first, images, labels)
                with torch.no_grad():
                    tally.add(first, self.model(attacked), labels)
            source = f"{self.data.name} test set, attacked through the {options.norms} norms"
            yield self._row(name, source, tally, note=attacks.NO_DEFENCE, calibrated=False)

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


def _silent(text: str) -> None:
    return None

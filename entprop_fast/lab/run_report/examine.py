"""Examine a run's network: its answers on the test images, its norms' halves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from entprop_fast.lab.data import ImageSet
from entprop_fast.lab.evaluation.choose_suite import usual_batch_size
from entprop_fast.lab.evaluation.norm_drift import drift
from entprop_fast.lab.evaluation.scored_network import Scored
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.run_report.answers import Answers, answers_of
from entprop_fast.lab.run_report.read_run import Run
from entprop_fast.lab.training.deploy import NetworkSpec
from entprop_fast.lab.training.errors import machine_failed, one_line
from entprop_fast.lab.training.load_network import load_network, load_test_images
from entprop_fast.lab.training.own_names import DATA
from entprop_fast.lab.training.user_code import network_maker, own_test_images
from entprop_fast.layers.dual_norm import DualNorm

OF_ANSWERS, OF_DRIFTS = "confusion matrix and test images", "norm drift"
Drifts = dict[str, dict[str, float]]  # layer to kind of drift to value


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Say where networks run, and what a run's files do not hold; None: what they or sizes say.

    Attributes:
        device: of the networks.
        data_dir: folder of data sets.
        workers: processes that read images.
        batch_size: images in a forward pass.
        model: the user's function ``module:function`` that makes a network of one's own.
        data: likewise, of images.
    """

    device: torch.device
    data_dir: str | None = None
    workers: int | None = None
    batch_size: int | None = None
    model: str | None = None
    data: str | None = None


@dataclass(frozen=True, kw_only=True)
class Examined:
    """Hold what was found about a run's network, or why it was not.

    Attributes:
        answers: on the test images; or the reason why there are none.
        drifts: how far the halves of each dual norm lie apart; or the reason.
    """

    answers: Answers | str
    drifts: Drifts | str

    def missing(self) -> Iterator[str]:
        """Yield a line for each part of the page that is left out: its sections, the reason."""
        for part, found in ((OF_ANSWERS, self.answers), (OF_DRIFTS, self.drifts)):
            if isinstance(found, str):
                yield f"without {part}: {found}"


class Examiner:
    """Examine runs, reading each data set once.

    Args:
        sources: of what runs do not hold.
        shown: images of each kind to keep of a run.
        reporter: is told what takes long.
    """

    def __init__(self, sources: Sources, shown: int, reporter: Reporter) -> None:
        self.sources, self.shown, self.reporter = sources, shown, reporter
        self._own = None if sources.model is None else network_maker(sources.model)
        self._images: dict[object, ImageSet] = {}

    def examine(self, run: Run) -> Examined:
        """Look at the run's network; what cannot be is left out, with its reason."""
        self.reporter.say(f"examining {run.folder}")
        return Examined(answers=self._answers(run), drifts=self._drifts(run))

    def _drifts(self, run: Run) -> Drifts | str:
        try:
            model, _, dual = load_network(run.folder, self.reporter.say, model=self._own)
        except (ValueError, OSError, ImportError) as error:
            return f"The network cannot be loaded: {one_line(error)}."
        return (drifts_of(model) if dual else {}) or _without_halves(run)

    def _answers(self, run: Run) -> Answers | str:
        try:  # of a finished run the network that was scored
            model, spec, _ = load_network(
                run.folder, lambda text: None, model=self._own, deployed=run.finished
            )
        except (ValueError, OSError, ImportError) as error:
            more = " The images are one's own, too: give --data MODULE:FUNCTION."
            own = self.sources.data is None and _of_own_images(run)
            return f"The network cannot be loaded: {one_line(error)}.{more if own else ''}"
        try:
            return self._classify(run, model, spec)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and machine_failed(error):
                raise
            return f"The test images cannot be shown: {one_line(error)}."

    def _classify(self, run: Run, model: nn.Module, spec: NetworkSpec) -> Answers:
        sources = self.sources
        images = self._read(run, spec)
        normalization = (spec.mean, spec.std) if spec.mean else None
        with self.reporter.task(f"test images of {run.name}", images.num_test) as task:
            return answers_of(
                Scored(model.to(sources.device), normalization, (0.0, 1.0)),
                images,
                batch_size=sources.batch_size or usual_batch_size(images),
                workers=sources.workers,
                shown=self.shown,
                class_names=spec.class_names,
                progress=task.reach,
            )

    def _read(self, run: Run, spec: NetworkSpec) -> ImageSet:
        if self.sources.data is not None and spec.dataset.startswith(DATA):
            workers = self.sources.workers
            return own_test_images(spec, self.sources.data, self.reporter.say, workers=workers)
        folder = self.sources.data_dir
        if folder is None and isinstance(saved := run.settings.get("data_dir"), str):
            folder = saved
        key = (spec.dataset, spec.seed, spec.image_size, spec.num_classes, folder)
        if key not in self._images:
            with self.reporter.waiting(f"reading data set {spec.dataset}"):
                images = load_test_images(spec, data_dir=folder, say=self.reporter.say)
            self._images[key] = images
        return self._images[key]


def drifts_of(model: nn.Module) -> Drifts:
    """Measure each dual norm of a network, in the order of its layers."""
    layers = ((name, one) for name, one in model.named_modules() if isinstance(one, DualNorm))
    return {name or "network": drift(layer) for name, layer in layers}


def _without_halves(run: Run) -> str:
    held = "" if _has_checkpoint(run.folder) else " (only its checkpoint.pt would hold them)"
    return f"This network has no auxiliary norms{held}."


def _of_own_images(run: Run) -> bool:
    return str(run.settings.get("dataset")).startswith(DATA)


def _has_checkpoint(folder: Path) -> bool:
    return any(folder.glob("checkpoint*.pt"))

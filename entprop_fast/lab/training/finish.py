"""Finish a run: its scores, the deployable network, pictures and the summary."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from entprop_fast import reference
from entprop_fast.lab import job, stopping
from entprop_fast.lab.corruptions.suites import Suite
from entprop_fast.lab.evaluation import Evaluation, EvaluationOptions, evaluate_model
from entprop_fast.lab.evaluation.choose_suite import choose_suite
from entprop_fast.lab.evaluation.evaluation_report import draw_heat_map_of
from entprop_fast.lab.evaluation.given_images import BatchedImages
from entprop_fast.lab.evaluation.saved_counts import SavedCounts
from entprop_fast.lab.files import write_json
from entprop_fast.lab.report import pictures
from entprop_fast.lab.training import criteria, ranks, run_folder
from entprop_fast.lab.training.deploy import plain_copy, save_deployable
from entprop_fast.lab.training.run_folder import RunFolder
from entprop_fast.lab.training.trainer import Trainer
from entprop_fast.methods import create_method
from entprop_fast.options import options_of

EXAMPLES = 8
_COLOURS = (1, 3)  # channels of what can be drawn


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Hold what ``summary.json`` does.

    Attributes:
        sa: accuracy on clean test images, in percent; None where there are none.
        ra: plain mean over kinds and severities of corruption; None where none were tested.
        hscore: harmonic mean of the two; None likewise.
        corruptions: kind to accuracies of severities 1 to 5, in percent.
        corruption_source: where the corrupted images come from, empty where there are none.
        ece: expected calibration error on the clean test images, in percent; None where there are
            none.
        corruption_ece: the same on corrupted ones.
        shifts: of further test sets that come with the data set, see `Evaluation`.
        cost: passes over the training images.
        captured: steps ran as a CUDA graph.
        epochs: that were trained.
        best_epoch: the one whose network is deployed, None for the last.
        rollbacks: times that the run went back to a checkpoint, see ``on_nan``.
        processes: that trained together, at the end.
    """

    sa: float | None
    ra: float | None
    hscore: float | None
    corruptions: dict[str, list[float]]
    corruption_source: str
    method: str
    arch: str
    dataset: str
    seed: int
    cost: float
    images_per_second: float
    seconds: float
    device: str
    captured: bool
    epochs: int
    train_size: int
    parameters: int
    folder: str
    best_epoch: int | None = None
    rollbacks: int = 0
    processes: int = 1
    ece: float | None = None
    corruption_ece: float | None = None
    shifts: dict[str, dict[str, float]] = field(default_factory=dict)


def open_suite(trainer: Trainer) -> Suite | None:
    """Open the corrupted images that the run will be scored on; check official ones.

    None where it will be scored on none.

    Raises:
        ValueError, FileNotFoundError: as `entprop_fast.lab.evaluation.choose_suite.choose_suite`.
    """
    if not trainer.images.num_test:
        return None
    return choose_suite(
        trainer.test.data,
        _evaluation(trainer),
        trainer.device,
        workers=trainer.config.workers,
        say=trainer.reporter.say,
    )


def finish(
    trainer: Trainer, folder: RunFolder, suite: Suite | None, *, draw: bool = True
) -> Summary:
    """Evaluate a trained run, as the evaluate command would, and write the rest of its folder.

    `suite` is what `open_suite` opened before the first step.

    Raises:
        Stopped: a signal came; called again, the evaluation goes on.
    """
    same = ranks.same_statistics(trainer.networks, trainer.config)
    with same, SavedCounts(folder.path, trainer.reporter.say) as kept:
        return _finish(trainer, folder, suite, kept, draw=draw)


def _finish(
    trainer: Trainer, folder: RunFolder, suite: Suite | None, kept: SavedCounts, *, draw: bool
) -> Summary:
    config, images, here = trainer.config, trainer.images, job.current()
    deployed = plain_copy(trainer.deployed())
    if here.is_main:
        save_deployable(folder / run_folder.MODEL, deployed, trainer.spec)
    scores = _scores(trainer, deployed, suite, kept) if images.num_test else None
    stopping.check_together()
    if here.is_main:
        (folder / run_folder.CORRUPTIONS).unlink(missing_ok=True)  # of another evaluation
    if draw:
        with trainer.reporter.waiting("drawing the pictures"):
            _draw(trainer, folder, deployed, scores)
    size = images.num_train
    train_seconds = sum(row["train_seconds"] for row in trainer.rows)
    seen = sum(row["images_per_second"] * row["train_seconds"] for row in trainer.rows)
    summary = Summary(
        sa=None if scores is None else scores.sa,
        ra=None if scores is None else scores.ra,
        hscore=None if scores is None else scores.hscore,
        corruptions={} if scores is None else scores.corruptions,
        corruption_source="" if scores is None else scores.corruption_source,
        method=config.method,
        arch=config.arch,
        dataset=images.name,
        seed=config.seed,
        cost=here.sums([trainer.method.rows])[0] / size,
        images_per_second=seen / train_seconds,
        seconds=trainer.seconds,
        device=_device_name(trainer.device),
        captured=trainer.captured,
        epochs=trainer.epoch,
        train_size=size,
        parameters=sum(parameter.numel() for parameter in deployed.parameters()),
        folder=str(folder.path),
        best_epoch=trainer.best.epoch if trainer.best else None,
        rollbacks=trainer.rollbacks.count,
        processes=here.world,
        ece=None if scores is None else scores.rows[0].ece,
        corruption_ece=None if scores is None else scores.corruption_ece,
        shifts={} if scores is None else scores.shifts,
    )
    trainer.loggers.finish({name: getattr(summary, name) for name in ("sa", "ra", "hscore")})
    if here.is_main:
        write_json(folder / run_folder.SUMMARY, asdict(summary))
    return summary


def _draw(
    trainer: Trainer, folder: RunFolder, deployed: nn.Module, scores: Evaluation | None
) -> None:
    """Draw the pictures; the last one's step is one of all processes."""
    if job.current().is_main:
        pictures.draw_curves(folder / run_folder.CURVES, trainer.rows)
        stopping.check()
        if scores is not None and scores.corruptions:
            draw_heat_map_of(folder / run_folder.CORRUPTIONS, [scores])
    stopping.check_together()
    if trainer.images.image_shape[0] in _COLOURS:
        _draw_examples(trainer, deployed, folder / run_folder.EXAMPLES)


def _scores(
    trainer: Trainer, deployed: nn.Module, suite: Suite | None, kept: SavedCounts
) -> Evaluation:
    test, data = trainer.test, trainer.test.data
    with trainer.reporter.measuring() as progress:
        return evaluate_model(
            deployed,
            data,
            _evaluation(trainer),
            name=trainer.config.method,
            normalization=test.normalization,
            input_range=test.input_range,
            workers=None if isinstance(data, BatchedImages) else trainer.config.workers,
            say=trainer.reporter.say,
            progress=progress,
            kept=kept if data is trainer.images else None,
            suite=suite,
        )


def _evaluation(trainer: Trainer) -> EvaluationOptions:
    config = trainer.config
    return EvaluationOptions(corruptions=config.corruptions, official_dir=config.data_dir)


def _draw_examples(trainer: Trainer, deployed: nn.Module, path: Path) -> None:
    """Draw what the trained network would be shown next, unmixed, if its method perturbs any.

    A step on a copy, so that the picture is a function of the final state, resumed or not.
    """
    config = trainer.config
    model = copy.deepcopy(trainer.model)
    for parameter in model.parameters():
        parameter.grad = None
    known = options_of(trainer.method.Options)
    mixes = [known[name] for name in ("mixup", "cutmix") if name in known]
    unmixed = {one.name: 0.0 for one in mixes if one.bounds.hold(0)}  # some always mix
    options = trainer.method_options | unmixed
    # Of this process's own rows, where several train.
    own = {"ranks": "independent", "selection": "rank"}
    options |= {name: one for name, one in own.items() if name in options}
    if (criterion := trainer.method.criterion) is not None:
        options["criterion"] = criterion = copy.deepcopy(criterion)
    method = create_method(
        config.method,
        ranks.replicated(model, config),
        torch.optim.SGD(criteria.learned(model, criterion), lr=0.0),
        generator=torch.Generator(trainer.device).manual_seed(config.seed),
        capture="off",
        **options,
    )
    images, labels = next(trainer.loader.epoch(0))
    method(images, labels)
    images = images[: len(labels)]  # of several views the rows as they are
    index = method.selected_index
    if index is None:
        index = torch.arange(len(images), device=images.device)
    else:
        images, labels = method.rows_of_all(images), method.rows_of_all(labels)
    if method.perturbed is None or not job.current().is_main:
        return
    perturbed = method.perturbed[:EXAMPLES]
    shown, true = images[index[:EXAMPLES]], labels[index[:EXAMPLES]].tolist()
    entropy, predicted = _answers(deployed, shown)
    perturbed_entropy, afterwards = _answers(deployed, perturbed)
    names = trainer.images.class_names or [str(one) for one in range(trainer.spec.num_classes)]
    classes = [
        pictures.Classes(*(names[one] for one in numbers))
        for numbers in zip(true, predicted, afterwards, strict=True)
    ]
    before, after = (_as_picture(trainer, one) for one in (shown, perturbed))
    pictures.draw_examples(path, before, after, entropy, perturbed_entropy, classes)


def _as_picture(trainer: Trainer, images: Tensor) -> Tensor:
    """Return images ``[B, C, H, W]`` as the network takes them in [0, 1], on the CPU."""
    units = trainer.method.units
    low, high = units.input_range
    wide = units.to_image_units(images.cpu().float().movedim(1, -1)).movedim(-1, 1)
    return (wide - low) / (high - low)


def _answers(model: nn.Module, images: Tensor) -> tuple[list[float], list[int]]:
    """Return entropy (nats) and class of the deployed network's prediction for each image."""
    model.eval()
    with torch.no_grad():
        logits = model(images.clone()).float()
    return reference.entropy(logits).tolist(), logits.argmax(dim=1).tolist()


def _device_name(device: torch.device) -> str:
    return f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type

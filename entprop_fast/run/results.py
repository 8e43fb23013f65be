"""What a finished run leaves: scores, the deployable network, pictures and the summary."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from entprop_fast import metrics, reference
from entprop_fast.methods import create_method
from entprop_fast.run import pictures, run_folder
from entprop_fast.run.deploy import plain_copy, save_deployable
from entprop_fast.run.run_folder import RunFolder, write_json
from entprop_fast.run.trainer import Trainer

EXAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracies in percent; `corruptions` holds severities 1 to 5 of each kind."""

    sa: float
    ra: float
    hscore: float
    corruptions: dict[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class Summary(Scores):
    """What ``summary.json`` holds; `cost` is in passes over the training images.

    `captured`: steps ran as a CUDA graph.
    """

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


def evaluate(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int) -> Scores:
    """SA, RA and Hscore of a network through the norms it is routed to, the main ones by default.

    Args:
        model: on the images' device.
        images: clean test images ``[N, C, H, W]`` in [0, 1].
        labels: int64 ``[N]``.
        batch_size: images in a forward pass; changes nothing but speed and memory.
    """
    sa = metrics.accuracy(model, images, labels, batch_size)
    robust = metrics.robust_accuracy(model, images, labels, batch_size=batch_size)
    return _scores(sa, robust)


def evaluate_batches(
    model: nn.Module, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]
) -> Scores:
    """`evaluate` for images that are read in batches; `batches()` gives them anew, twice.

    Args:
        model: on the images' device.
        batches: clean test images ``[B, C, H, W]`` in [0, 1] and labels int64 ``[B]``.
    """
    return _scores(
        metrics.accuracy_over(model, batches()), metrics.robust_accuracy_over(model, batches())
    )


def _scores(sa: float, robust: Mapping[str, Sequence[float]]) -> Scores:
    values = [value for severities in robust.values() for value in severities]
    ra = sum(values) / len(values)
    return Scores(
        sa=100 * sa,
        ra=100 * ra,
        hscore=100 * metrics.hscore(sa, ra),
        corruptions={
            kind: [100 * one for one in severities] for kind, severities in robust.items()
        },
    )


def finish(trainer: Trainer, folder: RunFolder, *, draw: bool = True) -> Summary:
    """Evaluate a trained run and write the rest of its folder."""
    config, images = trainer.config, trainer.images
    deployed = plain_copy(trainer.model)
    save_deployable(folder / run_folder.MODEL, deployed, trainer.spec)
    scores = evaluate_batches(deployed, trainer.test.batches)
    if draw:
        pictures.draw_curves(folder / run_folder.CURVES, trainer.rows)
        pictures.draw_corruptions(folder / run_folder.CORRUPTIONS, scores.corruptions)
        _draw_examples(trainer, deployed, folder / run_folder.EXAMPLES)
    size = images.num_train
    train_seconds = sum(row["train_seconds"] for row in trainer.rows)
    seen = sum(row["images_per_second"] * row["train_seconds"] for row in trainer.rows)
    summary = Summary(
        **asdict(scores),
        method=config.method,
        arch=config.arch,
        dataset=images.name,
        seed=config.seed,
        cost=trainer.method.rows / size,
        images_per_second=seen / train_seconds,
        seconds=trainer.seconds,
        device=_device_name(trainer.device),
        captured=trainer.captured,
        epochs=config.epochs,
        train_size=size,
        parameters=sum(parameter.numel() for parameter in deployed.parameters()),
        folder=str(folder.path),
    )
    write_json(folder / run_folder.SUMMARY, asdict(summary))
    return summary


def _draw_examples(trainer: Trainer, deployed: nn.Module, path: Path) -> None:
    """What the trained network would be shown next, unmixed; nothing if its method perturbs none.

    A step on a copy, so that the picture is a function of the final state, resumed or not.
    """
    config = trainer.config
    model = copy.deepcopy(trainer.model)
    for parameter in model.parameters():
        parameter.grad = None
    unmixed = {name: 0.0 for name in ("mixup", "cutmix") if name in config.options}
    options = trainer.method_options | unmixed
    if (criterion := trainer.method.criterion) is not None:
        options["criterion"] = criterion = copy.deepcopy(criterion)
    learned = () if criterion is None else criterion.parameters()
    method = create_method(
        config.method,
        model,
        torch.optim.SGD([*model.parameters(), *learned], lr=0.0),
        generator=torch.Generator(trainer.device).manual_seed(config.seed),
        capture="off",
        **options,
    )
    images, labels = next(trainer.loader.epoch(0))
    method(images, labels)
    if method.perturbed is None:
        return
    perturbed = method.perturbed[:EXAMPLES]
    index = method.selected_index
    shown = images[:EXAMPLES] if index is None else images[index[:EXAMPLES]]
    pictures.draw_examples(
        path,
        shown.cpu(),
        perturbed.cpu(),
        _entropy(deployed, shown),
        _entropy(deployed, perturbed),
    )


def _entropy(model: nn.Module, images: Tensor) -> list[float]:
    """Entropy (nats) of the deployed network's prediction for each image."""
    model.eval()
    with torch.no_grad():
        entropy: list[float] = reference.entropy(model(images).float()).tolist()
    return entropy


def _device_name(device: torch.device) -> str:
    return f"cuda, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type

"""Train one run captured and eager, curve beside curve: `python -m bench.captured_run [DATA_SET]`.

The digits at 32x32 on WRN-28-10, and Fashion-MNIST on ResNet-18: the same seed, so the same
weights, batches and draws. A captured step computes what an eager one does, so the curves may
differ by no more than two eager runs do, whose sums cuDNN orders as it likes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from bench import rows
from bench.command import keep_as_measured, parser_of
from bench.timing import give_back, quartiles, require_cuda
from entprop_fast.lab import data
from entprop_fast.lab.data import ImageData
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.text import markdown_table
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.trainer import Trainer

NAME = "captured_run_cuda"
CAPTURED, EAGER, AGAIN = RUNS = ("captured", "eager", "eager again")
# Data set (and recipe) to the network and the epochs of the run.
SETS = {"digits": ("wrn28_10", 20), "fashion_mnist": ("resnet18", 16)}
DIGITS_PIXELS = 32
BESIDE = Path("data")  # where Fashion-MNIST lies on a machine to which files were carried
SHOWN = (1, 2, 3, 5, 10, 16, 20)  # epochs of the table


def images_at(pixels: int) -> ImageData:
    """Return the digits, enlarged."""
    digits = data.load("digits")

    def enlarged(images: Tensor) -> Tensor:
        size = (pixels, pixels)
        return F.interpolate(images, size, mode="bilinear", align_corners=False).clamp_(0, 1)

    return replace(
        digits,
        name=f"digits at {pixels} pixels",
        train_images=enlarged(digits.train_images),
        test_images=enlarged(digits.test_images),
    )


def load(config: Config) -> ImageData:
    """Load what a run is trained on.

    Raises:
        FileNotFoundError: Fashion-MNIST is not on this machine; the message says how to get it.
    """
    if config.dataset == "digits":
        return images_at(DIGITS_PIXELS)
    sizes = config.train_size, config.test_size
    try:
        return data.load("fashion_mnist", train_size=sizes[0], test_size=sizes[1])
    except FileNotFoundError:
        if not BESIDE.is_dir():
            raise
        return data.load("fashion_mnist", data_dir=BESIDE, train_size=sizes[0], test_size=sizes[1])


def run(name: str, config: Config, images: ImageData) -> rows.Row:
    """Train one run in a folder that is thrown away; return a row with its curve and scores.

    Off CUDA, where nothing can be captured, all runs are eager.
    """
    trainers: list[Trainer] = []
    on_cuda = config.device == "cuda"
    capture: Literal["on", "off"] = "on" if name == CAPTURED and on_cuda else "off"
    if on_cuda:
        give_back()  # the graphs of the run before
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        here = replace(config, capture=capture, out=str(Path(folder) / "run"))
        summary = train(
            here, images=images, reporter=Reporter.quiet(), watch=trainers.append, pictures=False
        )
    curve = trainers[0].rows
    later = [row["train_seconds"] for row in curve[1:]]  # without what the first one compiles
    return {
        "data_set": config.dataset,
        "run": name,
        "captured": summary.captured,
        "arch": config.arch,
        "method": config.method,
        "pixels": images.image_shape[-1],
        "train_images": images.num_train,
        "batch": config.batch_size,
        "epochs": config.epochs,
        "seed": config.seed,
        "device": summary.device,
        "loss": [row["loss"] for row in curve],
        "sa": [row["sa"] for row in curve],
        "final_sa": summary.sa,
        "final_ra": summary.ra,
        "hscore": summary.hscore,
        "seconds": sum(row["train_seconds"] for row in curve),
        "first_epoch_seconds": curve[0]["train_seconds"],
        "epoch_quartiles": quartiles(later),
        "peak_memory": torch.cuda.max_memory_reserved() if on_cuda else None,
    }


def largest_difference(one: rows.Row, other: rows.Row, what: str) -> float:
    """Return the largest difference of two curves, over all epochs."""
    pairs = zip(one[what], other[what], strict=True)
    return float(max(abs(a - b) for a, b in pairs))


def section(page: Path) -> str:
    """Write the curves of every data set side by side, and the scores at their ends."""
    found: dict[str, dict[str, rows.Row]] = {}
    for row in rows.comparable(rows.read(NAME)):
        found.setdefault(row["data_set"], {})[row["run"]] = row
    return "\n\n".join(_of_set(of_set) for of_set in found.values())


def _of_set(found: dict[str, rows.Row]) -> str:
    first = next(iter(found.values()))
    shown = sorted({epoch for epoch in (*SHOWN, first["epochs"]) if epoch <= first["epochs"]})
    lines = [["epoch", *(f"{what}, {name}" for what in ("loss", "SA") for name in found)]]
    for epoch in shown:
        losses = [f"{row['loss'][epoch - 1]:.4f}" for row in found.values()]
        scores = [f"{row['sa'][epoch - 1]:.1f}" for row in found.values()]
        lines.append([str(epoch), *losses, *scores])
    captured, eager, again = (found[name] for name in RUNS)
    ends = "; ".join(
        f"{name} SA {row['final_sa']:.1f}, RA {row['final_ra']:.1f}, Hscore {row['hscore']:.1f}"
        for name, row in found.items()
    )
    times = ", ".join(
        f"{name} {row['seconds'] - row['first_epoch_seconds']:.1f} s" for name, row in found.items()
    )
    size = f"{first['pixels']}x{first['pixels']}"
    return markdown_table(lines) + (
        f"\n\n{first['method']} on {first['arch']}, {first['train_images']} images of "
        f"{first['data_set']} at {size}, {first['epochs']} epochs, batches of {first['batch']}. "
        "Largest difference of an epoch's loss, captured from eager: "
        f"{largest_difference(captured, eager, 'loss'):.4f}; between the two eager runs: "
        f"{largest_difference(again, eager, 'loss'):.4f}. Of SA: "
        f"{largest_difference(captured, eager, 'sa'):.1f} and "
        f"{largest_difference(again, eager, 'sa'):.1f}. At the end: {ends}. Training after the "
        f"first epoch: {times}. Made by `python -m bench.captured_run {first['data_set']}` "
        f"({rows.origin(first)})."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the three runs of each data set; each row is written as it comes."""
    parser = parser_of("bench.captured_run", __doc__, "DATA_SET", SETS)
    parser.add_argument("--arch", help="in place of the data set's network")
    parser.add_argument("--epochs", type=int, help="in place of the data set's")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    given = parser.parse_args(arguments)
    if given.device == "cuda":
        require_cuda()
    keep_as_measured(NAME if given.device == "cuda" else "captured_run_cpu", _measured(given))


def _measured(given: argparse.Namespace) -> Iterator[tuple[list[rows.Row], str]]:
    for name in given.names:
        arch, epochs = SETS[name]
        config = resolve(
            name,
            arch=given.arch or arch,
            epochs=given.epochs or epochs,
            corruptions="generated",
            device=given.device,
        )
        try:
            images = load(config)
        except FileNotFoundError as missing:
            print(f"skipped: {missing}")
            continue
        for one in RUNS:
            row = run(one, config, images)
            scores = f"SA {row['final_sa']:.1f}, RA {row['final_ra']:.1f}"
            yield [row], f"{name}, {one}: {scores}, {row['seconds']:.1f} s"


if __name__ == "__main__":
    main()

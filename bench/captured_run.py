"""Train one run captured and eager, curve beside curve: `python -m bench.captured_run`.

The digits at 32x32 on WRN-28-10. A captured step computes what an eager one does, so the curves may
differ by no more than two eager runs do, whose sums cuDNN orders as it likes.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from bench import rows
from bench.timing import require_cuda
from entprop_fast.lab import data
from entprop_fast.lab.data import ImageData
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.report.text import markdown_table
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.engine import train
from entprop_fast.lab.training.recipe import resolve
from entprop_fast.lab.training.trainer import Trainer

NAME = "captured_run_cuda"
RUNS: dict[str, Literal["on", "off"]] = {"captured": "on", "eager": "off", "eager again": "off"}
SHOWN = (1, 2, 3, 5, 10, 20, 30)  # epochs of the table


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


def run(name: str, config: Config, images: ImageData) -> rows.Row:
    """Train one run in a folder that is thrown away; return a row with its curve."""
    trainers: list[Trainer] = []
    with tempfile.TemporaryDirectory() as folder:
        here = replace(config, capture=RUNS[name], out=str(Path(folder) / "run"))
        summary = train(
            here, images=images, reporter=Reporter.quiet(), watch=trainers.append, pictures=False
        )
    curve = trainers[0].rows
    return {
        "run": name,
        "captured": summary.captured,
        "arch": config.arch,
        "method": config.method,
        "pixels": images.image_shape[-1],
        "batch": config.batch_size,
        "epochs": config.epochs,
        "device": summary.device,
        "loss": [row["loss"] for row in curve],
        "sa": [row["sa"] for row in curve],
        "seconds": sum(row["train_seconds"] for row in curve),
        "first_epoch_seconds": curve[0]["train_seconds"],
    }


def largest_difference(one: rows.Row, other: rows.Row, what: str) -> float:
    """Return the largest difference of two curves, over all epochs."""
    pairs = zip(one[what], other[what], strict=True)
    return float(max(abs(a - b) for a, b in pairs))


def section(page: Path) -> str:
    """Write the curves side by side."""
    found = {row["run"]: row for row in rows.read(NAME)}
    first = next(iter(found.values()))
    shown = sorted({epoch for epoch in (*SHOWN, first["epochs"]) if epoch <= first["epochs"]})
    head = ["epoch", *(f"{what}, {name}" for what in ("loss", "SA") for name in found)]
    lines = [head]
    for epoch in shown:
        losses = [f"{row['loss'][epoch - 1]:.4f}" for row in found.values()]
        scores = [f"{row['sa'][epoch - 1]:.1f}" for row in found.values()]
        lines.append([str(epoch), *losses, *scores])
    captured, eager, again = (found[name] for name in RUNS)
    times = ", ".join(
        f"{name} {row['seconds'] - row['first_epoch_seconds']:.1f} s" for name, row in found.items()
    )
    return markdown_table(lines) + (
        f"\n\n{first['method']} on {first['arch']}, digits at {first['pixels']}x{first['pixels']}, "
        f"{first['epochs']} epochs, batches of {first['batch']}. Largest difference of an epoch's "
        f"loss, captured from eager: {largest_difference(captured, eager, 'loss'):.4f}; between "
        f"the two eager runs: {largest_difference(again, eager, 'loss'):.4f}. Of SA: "
        f"{largest_difference(captured, eager, 'sa'):.1f} and "
        f"{largest_difference(again, eager, 'sa'):.1f}. Training after the first epoch: {times}. "
        f"Made by `python -m bench.captured_run` ({rows.origin(first)})."
    )


def main() -> None:
    """Train the three runs; each row is written as it comes."""
    require_cuda()
    epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    config = resolve("digits", arch="wrn28_10", epochs=epochs, corruptions="none", device="cuda")
    images = images_at(32)
    rows.begin(NAME)
    for name in RUNS:
        row = run(name, config, images)
        rows.add(NAME, [row])
        print(f"{name}: SA {row['sa'][-1]:.1f}, {row['seconds']:.1f} s", flush=True)
    print(f"rows: {rows.part(NAME)}")


if __name__ == "__main__":
    main()

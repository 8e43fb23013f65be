"""Define what is timed: a recipe's own step on random images, as the train command takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from entprop_fast.lab.data import ImageData, load
from entprop_fast.lab.data.datasets import EMBEDDED
from entprop_fast.lab.data.image_files import IMAGE_SIZE
from entprop_fast.lab.data.official_files import SOURCES
from entprop_fast.lab.data.tensor_sets import TENSORS
from entprop_fast.lab.report.progress import Reporter
from entprop_fast.lab.training import recipe
from entprop_fast.lab.training.allocator import keep_freed_memory
from entprop_fast.lab.training.config import Config
from entprop_fast.lab.training.parts import parts_of
from entprop_fast.lab.training.trainer import Trainer

MOST_ON_A_CPU = 64  # images of 224 pixels in a step: ImageNet's 256 take a minute for four
# Steps in a row behind one time: on CUDA the host runs ahead of the device, as it does in training.
STEPS = {"cpu": 1, "cuda": 20}
ROUNDS = 3
WARM_UP = {"cpu": 1, "cuda": 2}  # rounds; on CUDA with the capture


@dataclass(frozen=True)
class Case:
    """Hold a recipe on a device.

    Attributes:
        name: of the recipe.
        device: ``cpu`` or ``cuda``.
        config: its settings, but for the batch size, which may be smaller.
        pixels: height and width of its images.
        train_images: of the official data set (docs/data.md says where the numbers are from).
        recipe_batch: images a step that the recipe says.
    """

    name: str
    device: str
    config: Config
    pixels: int
    train_images: int
    classes: int
    recipe_batch: int

    def __str__(self) -> str:
        return f"{self.name}-{self.config.batch_size}x{self.pixels}x{self.pixels}"

    def images(self) -> ImageData:
        """Make a batch of random images in place of the data set; digits are there."""
        if self.name == EMBEDDED:
            return load("digits")
        generator = torch.Generator().manual_seed(0)
        count, pixels = self.config.batch_size, self.pixels
        channels = TENSORS[self.name].channels if self.name in TENSORS else 3
        images = torch.randint(
            256, (count, channels, pixels, pixels), generator=generator, dtype=torch.uint8
        )
        labels = torch.randint(self.classes, (count,), generator=generator)
        return ImageData(self.name, images, labels, images[:1], labels[:1], self.classes)

    def hours(self, images_per_second: float) -> float:
        """Extrapolate to all the recipe's epochs at that speed, without any evaluation."""
        return self.config.epochs * self.train_images / images_per_second / 3600


def case_of(name: str, device: str) -> Case:
    """Make a case of a recipe: its network, image size, AMP, method and, where it fits, batch."""
    config = recipe.resolve(name, device=device)
    batch = config.batch_size
    if name == EMBEDDED:
        digits = load("digits")
        pixels, train_images, classes = 8, digits.num_train, digits.num_classes
    else:
        counts = TENSORS[name].counts if name in TENSORS else SOURCES[name].counts
        assert counts is not None
        train_images, _, classes = counts
        train_images = config.train_size or train_images
        pixels = TENSORS[name].side if name in TENSORS else config.image_size or IMAGE_SIZE
    if device == "cpu" and pixels == IMAGE_SIZE:
        config = replace(config, batch_size=min(batch, MOST_ON_A_CPU))
    if name not in (EMBEDDED, *TENSORS):
        # Its images come cropped out of the processes that read them: they do not wait for that
        # here. Nor does a step depend on the values of the weights.
        config = replace(config, augment="none")
    return Case(name, device, config, pixels, train_images, classes, batch)


def stepper(case: Case) -> Callable[[], None]:
    """Make a call that takes `STEPS` steps of the run that the train command would start."""
    keep_freed_memory()
    quiet = Reporter.quiet()
    trainer = Trainer(parts_of(case.config, case.images(), quiet.say, fresh=False), quiet)
    batch = next(trainer.loader.epoch(0))
    steps = STEPS[case.device]

    def call() -> None:
        for _ in range(steps):
            trainer.method(*batch)
        if case.device == "cuda":
            torch.cuda.synchronize()

    return call

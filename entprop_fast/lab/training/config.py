"""Hold the settings of a run: one typed record, each field with all there is to say about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from entprop_fast.lab.checkpoint import MOST_KEPT
from entprop_fast.lab.data import LOADERS
from entprop_fast.lab.data.fewer_images import test_size_option
from entprop_fast.lab.data.readers import MOST_PROCESSES
from entprop_fast.lab.evaluation.evaluation_options import CORRUPTION_CHOICES
from entprop_fast.lab.training.augment_setting import augment_field, check_reading, check_views
from entprop_fast.lab.training.device import MOST_THREADS
from entprop_fast.lab.training.durations import (
    INTERVALS,
    TIMES,
    save_every_option,
    stall_option,
    time_option,
)
from entprop_fast.lab.training.loggers import log_option
from entprop_fast.lab.training.method_settings import Value
from entprop_fast.lab.training.optim import OPTIMIZERS, SCHEDULES
from entprop_fast.lab.training.own_names import short
from entprop_fast.models.normalized import NORMALIZATIONS
from entprop_fast.options import check, option, options_of

# What may differ between a run and its continuation: where it runs, not what it computes.
MACHINE_SETTINGS = frozenset(
    {
        *("device", "threads", "out", "data_dir", "capture", "loader", "workers"),
        *("time", "stall", "save_every", "keep_checkpoints", "on_nan", "log", "imports"),
    }
)
# What the scores of a run depend on, not its network: a finished one can be evaluated again.
SCORE_SETTINGS = frozenset({"corruptions"})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Hold every setting of a run; `entprop_fast.lab.training.recipe.resolve` reads a recipe's.

    `options` holds the method's own, `imports` the functions (``module:function``) that whoever
    runs it named, and that no file can name; the fields describe the other attributes.

    Raises:
        TypeError, ValueError: a value that is not valid; the message names the setting.
    """

    arch: str = option(help="Network to train: wrn28_10, resnet18, timm:NAME, ...", group="network")
    dataset: str = option(
        help="Data set: digits, cifar10, folder:PATH for images of your own, ...", group="data"
    )
    data_dir: str | None = option(
        None, "Folder that holds the files of the data set.", group="data"
    )
    image_size: int | None = option(
        None,
        "Height and width of images read from files. Left out, it is 224, or the files' own size "
        "where those of a folder are smaller and no weights are given.",
        low=1,
        unit="pixels",
        group="data",
    )
    weights: str | None = option(
        None,
        "Weights to start from: a file, pretrained (the published ones of the network) or random.",
        group="network",
    )
    normalize: str = option(
        "none",
        "How the network normalises images, which come in [0, 1].",
        choices=NORMALIZATIONS,
        group="network",
    )
    method: str = option(help="Training method: entprop, advprop, vanilla, ...", group="method")
    epochs: int = option(help="Passes over the training images.", low=1, group="training")
    batch_size: int = option(help="Images in a step.", low=1, group="training")
    drop_last: bool = option(
        True, "Leave out an epoch's last batch where it is smaller.", group="training"
    )
    augment: str = augment_field()
    lr: float = option(
        help="Highest learning rate of the run.", low=0, open_low=True, group="training"
    )
    weight_decay: float = option(0.0, "Weight decay.", low=0, group="training")
    optimizer: str = option(
        "sgd", "Optimizer of the weights.", choices=OPTIMIZERS, group="training"
    )
    momentum: float = option(0.9, "Momentum of sgd.", low=0, group="training")
    nesterov: bool = option(False, "Use Nesterov momentum in sgd.", group="training")
    norm_decay: bool = option(
        True,
        "Apply weight decay to norms and biases, too: to all parameters of one dimension.",
        group="training",
    )
    layer_decay: float | None = option(
        None,
        "Learning rate of each layer, as a share of that of the layer above it, such as 0.75 in "
        "fine-tuning; a block is a layer, and the head has the whole rate.",
        low=0,
        open_low=True,
        high=1,
        group="training",
    )
    schedule: str = option(
        "constant", "Course of the learning rate.", choices=SCHEDULES, group="training"
    )
    warmup: float = option(
        0.1, "Share of the run over which onecycle rises.", low=0, high=1, group="training"
    )
    warmup_epochs: float = option(
        0.0,
        "Epochs over which the learning rate of the other schedules rises to theirs, in a line.",
        low=0,
        unit="epochs",
        group="training",
    )
    decay_every: int = option(
        30, "Epochs between two drops of the schedule step.", low=1, group="training"
    )
    accumulate_batches: int = option(
        1,
        "Batches of --batch-size in an optimiser step, which takes their mean gradient; rows are "
        "selected within each. --accumulate N is the same.",
        low=1,
        group="training",
    )
    ema: float | None = option(
        None,
        "Decay of an average of the weights over the steps, such as 0.999, which is evaluated and "
        "deployed. Left out, the weights themselves are.",
        low=0,
        open_low=True,
        high=1,
        open_high=True,
        group="training",
    )
    validation: float = option(
        0.0,
        "Share of the training images held out. After each epoch the network is scored on them, "
        "clean and under five generated corruptions, and the best one by Hscore is deployed.",
        low=0,
        high=1,
        open_high=True,
        group="training",
    )
    patience: int | None = option(
        None,
        "Epochs without a better Hscore of the held-out images after which training ends; with "
        "--validation.",
        low=1,
        group="training",
    )
    time: str | None = option(
        None,
        "Time after which the run saves and ends, to be resumed. The clock starts anew then.",
        unit=TIMES,
        parse=time_option,
        group="machine",
    )
    stall: str = option(
        "10min",
        "Time that a process of a job may stand still in training or evaluation, before all of "
        "them end and the first one's rank and place are named.",
        unit=TIMES,
        parse=stall_option,
        group="machine",
    )
    save_every: str | None = option(
        None,
        "Save checkpoints within epochs, too. Left out, each epoch is saved.",
        unit=INTERVALS,
        parse=save_every_option,
        group="output",
    )
    keep_checkpoints: int = option(
        2,
        "Checkpoints that are kept, the newest among them.",
        low=1,
        high=MOST_KEPT,
        group="output",
    )
    on_nan: Literal["stop", "rollback"] = option(
        "stop",
        "What to do where a loss or a weight is NaN or infinite: stop with exit code 1, or go back "
        "to the newest checkpoint and leave out the steps that led there.",
        group="training",
    )
    log: str | None = option(
        None,
        "Loggers beside metrics.jsonl, joined by commas: csv, tensorboard, wandb.",
        parse=log_option,
        group="output",
    )
    corruptions: str = option(
        "auto",
        "Corrupted test images behind RA: official are those in --data-dir. auto takes digits "
        "for digits, else official where they are, else generated.",
        choices=CORRUPTION_CHOICES,
        group="evaluation",
    )
    sync_norms: bool = option(
        False,
        "Let batch norms normalise the rows of all processes together. ranks exact does so, too.",
        group="training",
    )
    norm_stats: Literal["broadcast", "average", "rank"] = option(
        "broadcast",
        "Whose running statistics count where norms are not synchronised: rank 0's, sent to all "
        "before every step; the average of all, taken before each evaluation and save; or those "
        "of rank 0, while each process keeps its own.",
        group="training",
    )
    seed: int = option(
        0, "Seed of the weights, the split, the order and every draw.", low=0, group="training"
    )
    train_size: int | None = option(
        None, "Number of training images. Left out, all are used.", low=1, group="data"
    )
    test_size: int | None = test_size_option()
    device: str = option(
        "auto", "Device: auto, cpu, cuda, cuda:N, mps, xpu or xpu:N.", group="machine"
    )
    amp: Literal["auto", "none", "bf16", "fp16"] = option(  # fp16: the method says why not
        "auto", "Mixed precision. auto is bf16 on CUDA and none elsewhere.", group="machine"
    )
    capture: Literal["auto", "on", "off"] = option(
        "auto", "Replay the step as a CUDA graph.", group="machine"
    )
    loader: str = option(
        "auto",
        "Keep training images on the device, or prefetch them by other processes. auto keeps "
        "them where a quarter of the device's free memory holds them.",
        choices=LOADERS,
        group="machine",
    )
    workers: int | None = option(
        None,
        "Processes that read images; 0 reads without. Left out, it is one a core, at most 8.",
        low=0,
        high=MOST_PROCESSES,
        group="machine",
    )
    threads: int | None = option(
        None,
        "CPU threads. Left out, torch chooses.",
        low=1,
        high=MOST_THREADS,
        group="machine",
    )
    out: str | None = option(
        None,
        "Folder of the run. Left out, it is runs/<dataset>-<arch>-<method>-<seed>.",
        group="output",
    )
    options: dict[str, Value] = field(default_factory=dict)
    imports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, about in SETTINGS.items():
            check(about, getattr(self, name))
        if self.out == "":
            raise ValueError("out='': expected the name of a folder")
        if self.nesterov and self.optimizer == "sgd" and not self.momentum > 0:
            raise ValueError(f"momentum={self.momentum}: expected a number above 0 with nesterov")
        if self.warmup_epochs and self.schedule == "onecycle":
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs:g}: schedule 'onecycle' has warmup, the share "
                "of the run that it rises for"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs:g}: expected at most {self.epochs}, the epochs"
            )
        check_reading(self.augment, self.dataset)
        check_views(self.augment, self.options)
        if self.patience is not None and not self.validation:
            raise ValueError(
                f"patience={self.patience}: early stopping goes by held-out images; hold some out "
                "with validation, such as 0.05"
            )

    @property
    def folder(self) -> Path:
        """The run folder."""
        if self.out is not None:
            return Path(self.out)
        name = f"{short(self.dataset)}-{short(self.arch)}-{self.method}-{self.seed}"
        return Path("runs") / re.sub(r"[^\w.-]+", "-", name)


SETTINGS = options_of(Config)

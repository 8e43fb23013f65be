"""The settings of a run: one typed record, its types and its valid values."""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from entprop_fast import name_errors
from entprop_fast.lab.data import AUGMENTS, LOADERS
from entprop_fast.lab.data.readers import MOST_PROCESSES
from entprop_fast.lab.evaluation.evaluation_options import CORRUPTION_CHOICES
from entprop_fast.lab.training.device import MOST_THREADS
from entprop_fast.lab.training.optim import OPTIMIZERS, SCHEDULES
from entprop_fast.methods import method_options
from entprop_fast.models.normalized import NORMALIZATIONS

Value = str | int | float | bool

AMP_MODES = ("auto", "none", "bf16", "fp16")  # fp16: the method says why it is refused
CAPTURE_MODES = ("auto", "on", "off")

LARGEST = 2**31  # no count of anything here reaches it
LARGEST_FLOAT = 1e38  # what is about float32's range

# What may differ between a run and its continuation: where it runs, not what it computes.
MACHINE_SETTINGS = frozenset(
    {"device", "threads", "out", "data_dir", "capture", "loader", "workers"}
)
# What the scores of a run depend on, not its network: a finished one can be evaluated again.
SCORE_SETTINGS = frozenset({"corruptions"})


def _setting(text: str, **default: Any) -> Any:
    return field(metadata={"help": text}, **default)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Every setting of a run. `entprop_fast.lab.training.recipe.resolve` makes one from a recipe.

    `options` holds the method's own; the other attributes are described in their metadata, which
    is also the help of the command line.

    Raises:
        ValueError: a value outside its range; the message names the setting and what is valid.
    """

    arch: str = _setting("network: wrn28_10, resnet18, timm:NAME, ...")
    dataset: str = _setting("data set, e.g. digits")
    data_dir: str | None = _setting("folder of a data set that is not embedded", default=None)
    image_size: int | None = _setting(
        "height and width of images read from files; when left out 224, or the files' own size "
        "where those of a folder are smaller and no weights are given",
        default=None,
    )
    weights: str | None = _setting(
        "to start from: a file, pretrained (the published ones of the network) or random",
        default=None,
    )
    normalize: str = _setting(
        "what the network does with images in [0, 1] first: none, imagenet or half", default="none"
    )
    method: str = _setting("training method, e.g. entprop")
    epochs: int = _setting("passes over the training images")
    batch_size: int = _setting("images a step")
    drop_last: bool = _setting("leave out an epoch's last, smaller batch", default=True)
    augment: str = _setting(
        "of training images: none, crop-flip (4 black pixels around them) or, as they are read "
        "from files, resized-crop-flip",
        default="none",
    )
    lr: float = _setting("highest learning rate")
    weight_decay: float = _setting("of every parameter", default=0.0)
    optimizer: str = _setting("sgd, adam or adamw", default="sgd")
    momentum: float = _setting("of sgd", default=0.9)
    nesterov: bool = _setting("Nesterov momentum, of sgd", default=False)
    schedule: str = _setting("onecycle, cosine, step or constant", default="constant")
    warmup: float = _setting("share of the run that onecycle rises for", default=0.1)
    decay_every: int = _setting("epochs between two drops of step", default=30)
    corruptions: str = _setting(
        "of the test images behind RA: official (in --data-dir), generated, digits or none; "
        "auto: digits for digits, else official where they are, else generated",
        default="auto",
    )
    seed: int = _setting("of the weights, the split, the order and every draw", default=0)
    train_size: int | None = _setting("training images, all when left out", default=None)
    device: str = _setting("auto, cpu, cuda, cuda:N, mps, xpu or xpu:N", default="auto")
    amp: str = _setting("auto (bf16 on CUDA), none or bf16", default="auto")
    capture: str = _setting("CUDA graph of the step: auto, on or off", default="auto")
    loader: str = _setting(
        "training images on the device, or prefetch (read ahead by other processes); "
        "auto: on the device where a quarter of its free memory holds them",
        default="auto",
    )
    workers: int | None = _setting(
        "processes of prefetch, one a core but at most 8 when left out; 0: none", default=None
    )
    threads: int | None = _setting("CPU threads, torch's choice when left out", default=None)
    out: str | None = _setting(
        "run folder, runs/<dataset>-<arch>-<method>-<seed> when left out", default=None
    )
    options: dict[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    @property
    def folder(self) -> Path:
        """The run folder."""
        if self.out is not None:
            return Path(self.out)
        name = f"{self.dataset}-{self.arch}-{self.method}-{self.seed}"
        return Path("runs") / re.sub(r"[^\w.-]+", "-", name)


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """The methods' options that a flag or a recipe can set; None: not given."""

    k: float | None = _setting("share of the batch that is perturbed, in (0, 1]", default=None)
    n: int | None = _setting("auxiliary passes", default=None)
    eps: float | None = _setting("radius in image units, e.g. 4/255", default=None)
    alpha: float | None = _setting("step in image units, e.g. 1/255", default=None)
    mixup: float | None = _setting("MixUp's Beta parameter, 0: off", default=None)
    cutmix: float | None = _setting("CutMix's Beta parameter, 0: off", default=None)
    p_adv: float | None = _setting("share of the batch that fast_advprop attacks", default=None)
    replays: int | None = _setting("of each batch, of free_at", default=None)
    random_start: bool | None = _setting("of the attack, within eps", default=None)
    attack_mode: str | None = _setting("of the model while attacked: train, eval", default=None)
    attack_loss: str | None = _setting("what the attack climbs: ce, cw, trades", default=None)
    norms: str | None = _setting("dual, or shared: all passes through one set", default=None)
    score: str | None = _setting("selects rows: entropy, margin, random, ...", default=None)
    aux_labels: str | None = _setting("of the auxiliary loss: original, mixed", default=None)
    accumulate: str | None = _setting("passes the weights learn from: last, all", default=None)
    aux_weight: float | None = _setting("weight of the auxiliary loss", default=None)
    aux_stats: str | None = _setting("passes that move statistics: last, every", default=None)
    selection: str | None = _setting("among the rows of one rank, or global", default=None)
    equalize: bool | None = _setting("divide gradients by the rows behind them", default=None)
    criterion: str | None = _setting("cross_entropy, or gpaco's loss in its place", default=None)
    label_smoothing: float | None = _setting("of the cross-entropy, in [0, 1]", default=None)
    max_grad_norm: float | None = _setting("clip the gradients' norm", default=None)


OPTION_NAMES = tuple(one.name for one in fields(MethodOptions))
SETTING_NAMES = tuple(one.name for one in fields(Config) if one.name != "options")


def differences(config: Config, saved: Mapping[str, Any]) -> list[str]:
    """Name what keeps `config` from continuing a run saved as ``asdict(config)``.

    A setting that an earlier version did not have was what its default says.
    """
    now, then = _flat(asdict(config)), _defaults(config.method) | _flat(saved)
    return [
        f"{name} is {now.get(name)!r}, was {then.get(name)!r}"
        for name in sorted(now.keys() | then.keys())
        if name not in MACHINE_SETTINGS | SCORE_SETTINGS and now.get(name) != then.get(name)
    ]


def typed(values: Mapping[str, Any], record: type) -> dict[str, Any]:
    """`values` as the types that the dataclass `record` declares for them.

    Raises:
        ValueError: a value of another type, or a name that the record does not have.
    """
    types_of = value_types(record)
    for name in values:
        if name not in types_of:
            raise name_errors.unknown("setting", name, types_of)
    return {name: _as(name, value, types_of[name]) for name, value in values.items()}


def value_types(record: type) -> dict[str, type]:
    """Name to type of a dataclass's fields, ``X`` for ``X | None``."""
    hints = get_type_hints(record)
    return {one.name: _without_none(hints[one.name]) for one in fields(record)}


def number(text: str) -> float:
    """A float, or a fraction of two: ``"4/255"``.

    Raises:
        ValueError: neither.
    """
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is neither a number nor a fraction like 4/255") from None


def unfit(text: str) -> str | None:
    """Why a string can be no setting and no name of a file, or None."""
    if "\0" in text:
        return "holds a null character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8: rename it, or make a link that is"
    return None


def _without_none(hint: Any) -> type:
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is Literal:
        return type(get_args(hint)[0])
    return hint if isinstance(hint, type) else dict


def _as(name: str, value: Any, wanted: type) -> Any:
    if wanted is float and isinstance(value, str):
        try:
            return number(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < LARGEST else math.inf
    if isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
        if isinstance(value, int) and abs(value) >= LARGEST:
            raise ValueError(f"{name} must be below 2**31, got {value!r}")
        if isinstance(value, float) and abs(value) > LARGEST_FLOAT:
            raise ValueError(f"{name} must be a number that float32 holds, got {value!r}")
        if isinstance(value, str) and (reason := unfit(value)):
            raise ValueError(f"{name} = {value!r} {reason}")
        return value
    raise ValueError(f"{name} must be of type {wanted.__name__}, got {value!r}")


def _check(config: Config) -> None:
    choices = {
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "amp": AMP_MODES,
        "capture": CAPTURE_MODES,
        "augment": AUGMENTS,
        "loader": LOADERS,
        "normalize": NORMALIZATIONS,
        "corruptions": CORRUPTION_CHOICES,
    }
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise name_errors.unknown(name, getattr(config, name), known)
    _require(
        config.threads is None or config.threads <= MOST_THREADS,
        "threads",
        config.threads,
        f"at most {MOST_THREADS}",
    )
    for name in ("epochs", "batch_size", "decay_every", "train_size", "threads", "image_size"):
        value = getattr(config, name)
        _require(value is None or value >= 1, name, value, "at least 1")
    _require(
        config.workers is None or 0 <= config.workers <= MOST_PROCESSES,
        "workers",
        config.workers,
        "at least 0" if (config.workers or 0) < 0 else f"at most {MOST_PROCESSES}",
    )
    for name in ("weight_decay", "momentum"):
        value = getattr(config, name)
        _require(0 <= value < math.inf, name, value, "a finite number of at least 0")
    _require(0 < config.lr < LARGEST_FLOAT, "lr", config.lr, "a finite number above 0")
    _require(0 <= config.warmup <= 1, "warmup", config.warmup, "in [0, 1]")
    _require(0 <= config.seed < 2**31, "seed", config.seed, "in [0, 2**31)")
    if config.nesterov and config.optimizer == "sgd":
        _require(config.momentum > 0, "momentum", config.momentum, "above 0 with nesterov")


def _require(holds: bool, name: str, value: object, valid: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {valid}, got {value!r}")


def _defaults(method: str) -> dict[str, Any]:
    of_run = {one.name: one.default for one in fields(Config) if one.default is not MISSING}
    of_method = {k: v for k, v in method_options(method).items() if k in OPTION_NAMES}
    return of_run | {name: value for name, value in of_method.items() if value is not None}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in settings.items() if name != "options"}
    return plain | dict(settings.get("options", {}))

"""Build networks as a run does, and deploy them in a file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from entprop_fast import models
from entprop_fast.lab.data import ImageFiles, ImageSet
from entprop_fast.lab.data.image_files import SMALL, resized
from entprop_fast.lab.files import write_atomically
from entprop_fast.lab.training.own_names import MODEL
from entprop_fast.lab.training.preprocessing import Preprocessing
from entprop_fast.layers import convert_dual_norm, strip_auxiliary
from entprop_fast.methods import needs_dual_norms
from entprop_fast.models import resnet
from entprop_fast.models.normalized import core, with_normalization
from entprop_fast.models.weights import load_weights
from entprop_fast.options import check, create, option, options_of

# One key only: the order of several in a safetensors header is not defined, the bytes would differ.
_METADATA_KEY = "entprop_fast"

LARGEST_SIDE = 8192  # pixels: a file's number must not take all memory
Own = nn.Module | Callable[..., nn.Module]

# Of data sets held as whole tensors, for files that do not say it.
_EARLIER_SIZES = {"digits": (8, 8), "cifar10": (32, 32), "cifar100": (32, 32)}


class ModelNeeded(ValueError):
    """A file holds the weights of a network that only its owner can create."""


@dataclass(frozen=True)
class NetworkSpec:
    """Say what it takes to build a run's network, and to find its test images again."""

    arch: str = option()
    num_classes: int = option()
    in_channels: int = option()
    stem: resnet.Stem = option("imagenet")
    dataset: str = option("")
    seed: int = option(0)
    image_size: int | None = option(None, low=1, high=LARGEST_SIDE)  # of images read from files
    normalize: str = option("none")  # what the network does first; images come in [0, 1]
    # What files of earlier versions do not say.
    class_names: tuple[str, ...] = option(())  # of output 0, 1, ...; empty where nobody named them
    # Height and width; empty where not known.
    input_size: tuple[int, ...] = option((), low=1, high=LARGEST_SIDE)
    # Of each channel, where images come normalised instead: somebody's own loader did it.
    mean: tuple[float, ...] = option(())
    std: tuple[float, ...] = option((), low=0, open_low=True)
    test_size: int | None = option(None, low=1)  # test images that the run kept

    def __post_init__(self) -> None:
        lengths: dict[str, tuple[int, str]] = {
            "class_names": (self.num_classes, "a name for each class"),
            "input_size": (2, "height and width"),
            "mean": (self.in_channels, "a value for each channel"),
            "std": (self.in_channels, "a value for each channel"),
        }
        for name, (length, valid) in lengths.items():
            given = getattr(self, name)
            if given and len(given) != length:
                raise ValueError(f"{name} has {len(given)} entries: expected {length}, {valid}")
        for name in ("image_size", "input_size"):  # before a run that nobody could load
            check(options_of(NetworkSpec)[name], getattr(self, name))
        if bool(self.mean) != bool(self.std):
            raise ValueError("mean and std: expected both or neither")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the outputs, their numbers where nobody named them."""
        return self.class_names or tuple(map(str, range(self.num_classes)))

    @property
    def preprocessing(self) -> Preprocessing:
        """What makes the network's input of an image file, as the run's evaluation did.

        Raises:
            ValueError: an earlier version wrote the file, which does not say how large images are.
        """
        if self.image_size is not None:  # files are enlarged first, and lose their border
            size: tuple[int, ...] = (self.image_size, self.image_size)
            resize = (resized(self.image_size),) * 2
        else:  # whole tensors are taken as they are
            size = self.input_size or _EARLIER_SIZES.get(self.dataset, ())
            resize = (size[0], size[1]) if size else (0, 0)
        if not size:
            raise ValueError(f"input_size of the images of {self.dataset!r} is not known")
        return Preprocessing(
            channels=self.in_channels,
            height=size[0],
            width=size[1],
            resize=resize,
            mean=self.mean,
            std=self.std,
        )

    @classmethod
    def of(cls, saved: object) -> NetworkSpec:
        """Check what a file says: anybody may have written it.

        Raises:
            TypeError, ValueError: it is no such record, or a value is not of its field's type.
        """
        if not isinstance(saved, Mapping):
            raise ValueError(f"network is a {type(saved).__name__}, not a table")
        return create(cls, {str(name): value for name, value in saved.items()}, owner="network")

    def build(self, model: Own | None = None) -> nn.Module:
        """Build the plain network with fresh weights, channels_last, behind its normalisation.

        Args:
            model: the network itself, or a function of ``num_classes`` and ``in_channels`` that
                makes it, where `arch` names none that `entprop_fast.models` can create: no name out
                of a file is imported.

        Raises:
            ValueError: no such architecture, or the normalisation is of other channels.
            ModelNeeded: `arch` is a caller's own network, and none is given.
            ImportError: the library behind it is not installed.
        """
        network = model if isinstance(model, nn.Module) else self._create(model)
        built = with_normalization(network, self.normalize, self.in_channels)
        return built.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    @property
    def own(self) -> bool:
        """Whether the network is a caller's: its arch names nothing that can be created."""
        return not self.arch or self.arch.startswith(MODEL)

    def _create(self, make: Callable[..., nn.Module] | None) -> nn.Module:
        if self.own:
            if make is None:
                raise ModelNeeded(
                    f"arch {self.arch!r} is a network of one's own, and no code is run because a "
                    "file names it: give --model MODULE:FUNCTION (in Python: model=)"
                )
            return make(num_classes=self.num_classes, in_channels=self.in_channels)
        return models.create(
            self.arch,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            stem=self.stem,
        )

    def build_for(
        self,
        method: str,
        options: Mapping[str, Any],
        *,
        model: Own | None = None,
        weights: str | None = None,
        say: Callable[[str], None] = print,
    ) -> nn.Module:
        """Build the network that `method` trains, with dual norms where it needs them.

        Args:
            method: its name.
            options: the method's.
            model: as `build` takes it; it is converted in place.
            weights: to start from, see `entprop_fast.models.weights.load_weights`; both halves of
                a dual norm start from those of the plain one.
            say: is told what was not taken from them.

        Raises:
            ValueError, ImportError: as `build` and `load_weights`.
        """
        built = self.build(model)
        if weights is not None:
            sizes = {"num_classes": self.num_classes, "in_channels": self.in_channels}
            for note in load_weights(core(built), weights, self.arch, **sizes):
                say(note)
        return convert_dual_norm(built) if needs_dual_norms(method, options) else built


def stem_for(arch: str, pixels: int) -> resnet.Stem:
    """Return the stem of `arch` for images of so many pixels a side: CIFAR's for small ones."""
    # Larger ones can afford to lose 3/4 of the resolution at once.
    return "cifar" if arch in resnet.LAYOUTS and pixels <= SMALL else "imagenet"


def network_for(
    arch: str,
    data: ImageSet,
    seed: int,
    *,
    normalize: str = "none",
    test_size: int | None = None,
) -> NetworkSpec:
    """Describe `arch` for the images of `data`; ResNets get the CIFAR stem for small ones."""
    channels, height, width = data.image_shape
    return NetworkSpec(
        arch=arch,
        num_classes=data.num_classes,
        in_channels=channels,
        stem=stem_for(arch, max(height, width)),
        dataset=data.name,
        seed=seed,
        image_size=data.image_size if isinstance(data, ImageFiles) else None,
        normalize=normalize,
        class_names=tuple(data.class_names),
        input_size=(height, width),
        test_size=test_size,
    )


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy without auxiliary norms: what is deployed. `model` stays as it is."""
    return strip_auxiliary(copy.deepcopy(model))


def save_deployable(path: Path, plain: nn.Module, spec: NetworkSpec) -> None:
    """Write a network without auxiliary norms as safetensors, with what `load_deployable` needs."""
    write_atomically(path, deployable_bytes(plain, spec))


def deployable_bytes(plain: nn.Module, spec: NetworkSpec) -> bytes:
    """Return what `save_deployable` writes."""
    # Clones, because tied parameters must not share memory in the file.
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in core(plain).state_dict().items()
    }
    metadata = {_METADATA_KEY: json.dumps(asdict(spec), sort_keys=True)}
    return safetensors.torch.save(tensors, metadata)


def load_deployable(path: Path, model: Own | None = None) -> tuple[nn.Module, NetworkSpec]:
    """Load the network that `save_deployable` wrote, on the CPU, and what it was trained on.

    Args:
        path: of the file.
        model: takes the weights, where the network is one of the user's own.

    Raises:
        ValueError: the file is truncated, is a folder, or was not written by a run.
        FileNotFoundError: there is no such file.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: load its model.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if _METADATA_KEY not in metadata:
            raise ValueError(f"{path} does not say which network it holds: no run wrote it")
        spec = NetworkSpec.of(json.loads(metadata[_METADATA_KEY]))
        built = spec.build(model)
        core(built).load_state_dict(safetensors.torch.load_file(path))
    except (FileNotFoundError, ImportError, ModelNeeded):
        raise
    except Exception as error:  # the file may be damaged, or somebody else's
        reason = str(error) or type(error).__name__
        raise ValueError(f"{path} cannot be read as a run's network: {reason}") from error
    return built, spec

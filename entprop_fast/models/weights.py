"""Start a network from weights in a file or from published ones, for fine-tuning."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast.models import external, resnet
from entprop_fast.optional import require

PRETRAINED = "pretrained"
RANDOM = "random"
DEFAULT_TAG = "IMAGENET1K_V1"  # torchvision's name of the weights of the original training

State = dict[str, Tensor]

_WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which tools put a state dict
_PREFIXES = ("module.", "network.", "_orig_mod.")  # DDP's, Normalized's, torch.compile's
_LISTED = 5


def load_weights(
    model: nn.Module, source: str, arch: str, *, num_classes: int, in_channels: int
) -> list[str]:
    """Put weights into a plain network, in place; a classifier for other classes stays fresh.

    Args:
        model: what ``arch`` names.
        source: a ``.safetensors`` file, a file of ``torch.save`` (tensors alone are read from it,
            no pickled code is run), or ``pretrained``: the published weights of ``arch``;
            ``pretrained:TAG`` takes others than torchvision's ``IMAGENET1K_V1``. ``random`` leaves
            the network as it is.
        arch: as `entprop_fast.models.create` takes it.
        num_classes: of ``model``.
        in_channels: of ``model``.

    Returns:
        What was not taken over, a line each: a classifier that stays fresh, entries without a
        place in the network.

    Raises:
        ValueError: there are no such weights, they cannot be fetched, the file is damaged or holds
            more than tensors, or they are of another network.
        ImportError: the library behind ``arch`` is not installed.
    """
    if source == RANDOM:
        return []
    name, _, tag = source.partition(":")
    state = _published(arch, tag, in_channels) if name == PRETRAINED else read_weights(Path(source))
    return _take(model, without_prefix(state), source, num_classes)


def read_weights(path: Path) -> State:
    """Read the tensors of a file by name, onto the CPU.

    Raises:
        ValueError: there is no such file, it is damaged, or it holds no state dict of tensors.
    """
    if not path.is_file():
        raise ValueError(
            f"weights {str(path)!r}: there is no such file, nor is it {PRETRAINED!r} or {RANDOM!r}"
        )
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path)
        # timm's checkpoints hold their run's arguments, which are words and numbers.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"weights {str(path)!r} are damaged, or hold more than tensors; no pickled code is run "
            f"({str(error).partition('.')[0]})"
        ) from error
    except Exception as error:  # damaged bytes lead the readers anywhere
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"weights {str(path)!r} cannot be read: damaged, or no file of safetensors or of "
            f"torch.save ({reason})"
        ) from error
    return state_dict_in(found, f"weights {str(path)!r}")


def _safetensors(path: Path) -> State:
    require("safetensors", extra="train", purpose=f"weights {str(path)!r}")
    import safetensors.torch

    return safetensors.torch.load_file(path)


def state_dict_in(found: Any, source: str) -> State:
    """Return the state dict in what a checkpoint holds: as it is, or under a tool's key.

    Raises:
        ValueError: there is none of tensors; the message begins with `source`.
    """
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{source} hold {type(found).__name__}, not a state dict")
    if strange := [key for key, value in found.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{source}: {strange[0]!r} is no tensor, so no state dict")
    return dict(found)


def _published(arch: str, tag: str, in_channels: int) -> State:
    library, _, inner = arch.partition(":")
    try:
        if library == "timm":
            if tag:
                raise ValueError(f"a tag of timm's belongs to the name: --arch {arch}.{tag}")
            return external.timm_weights(inner, in_channels=in_channels)
        if library == "torchvision":
            return external.torchvision_weights(inner, tag or DEFAULT_TAG)
        if arch in resnet.LAYOUTS:  # the keys are the same
            return external.torchvision_weights(arch, tag or DEFAULT_TAG)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"weights 'pretrained' of {arch!r} cannot be fetched or read here ({error}); "
            "--weights FILE takes a file of them"
        ) from error
    raise ValueError(
        f"weights 'pretrained': nobody publishes those of {arch!r}; "
        f"{', '.join(resnet.LAYOUTS)}, timm:NAME and torchvision:NAME have some"
    )


def without_prefix(state: State) -> State:
    """Return a state dict without what DDP, `Normalized` or torch.compile put before each key."""
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _take(model: nn.Module, state: State, source: str, num_classes: int) -> list[str]:
    own = model.state_dict()
    head = _classifier(model, num_classes)
    fresh = ""  # why the classifier is not taken
    wrong: list[str] = []
    for key, value in own.items():
        of_head = head is not None and key.rpartition(".")[0] == head
        if key not in state:
            if of_head:
                fresh = "they have none"
            elif not key.endswith("num_batches_tracked"):  # older files lack it
                wrong.append(f"{key} is missing")
        elif state[key].is_floating_point() != value.is_floating_point() or state[key].is_meta:
            kind = "on no device" if state[key].is_meta else str(state[key].dtype)
            wrong.append(f"{key} is {kind}, here {value.dtype}")
        elif state[key].shape != value.shape:
            if of_head and state[key].shape[1:] == value.shape[1:]:
                fresh = f"theirs has {len(state[key])} classes, this data set {num_classes}"
            else:
                wrong.append(f"{key} is {_shape(state[key])}, here {_shape(value)}")
    if wrong:
        raise ValueError(
            f"weights {source!r} are of another network: {some(wrong)}{_of_the_stem(own, state)}"
        )
    taken = {
        key: value
        for key, value in state.items()
        if key in own and not (fresh and key.rpartition(".")[0] == head)
    }
    parameters = {key for key, _ in model.named_parameters()}
    if broken := [key for key in taken if key in parameters and not taken[key].isfinite().all()]:
        raise ValueError(f"weights {source!r} are damaged: {some(broken)} hold NaN or infinity")
    try:
        model.load_state_dict(taken, strict=False)
    except RuntimeError as error:  # a tensor of a kind that cannot be copied: sparse, quantized
        raise ValueError(f"weights {source!r} cannot be taken: {error}") from error
    notes = [f"classifier {head} starts fresh: {fresh}"] if fresh else []
    if unused := [key for key in state if key not in own]:
        notes.append(f"not used of {source}: {some(unused)}")
    return notes


def _of_the_stem(own: State, state: State) -> str:
    """Say why a ResNet for small images does not take published weights."""
    sizes = [list(one["conv1.weight"].shape[2:]) for one in (own, state) if "conv1.weight" in one]
    if sizes != [[3, 3], [7, 7]] or "layer4.0.conv1.weight" not in own:
        return ""
    return "; a ResNet has CIFAR's 3x3 stem for images of up to 64 pixels, the 7x7 one for larger"


def _classifier(model: nn.Module, num_classes: int) -> str | None:
    """Return the name of the last layer that gives a value for each class."""
    heads = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and module.weight.shape[0] == num_classes
    ]
    return heads[-1] if heads else None


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def some(names: list[str]) -> str:
    """Return the first few of many names."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more

"""Load checkpoints with auxiliary norms of other libraries: timm's split norm, AdvProp's."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.models.weights import State, read_weights, some, state_dict_in, without_prefix

ModelT = TypeVar("ModelT", bound=nn.Module)


class _Layout(NamedTuple):
    """Where a norm's two halves have their tensors, after the norm's own name."""

    main: str
    aux: str


_SPLIT = _Layout("", "aux_bn.0.")  # timm's SplitBatchNorm2d, whose further ones are dropped
# In the order in which they are tried: a norm that is itself the main half comes first.
_LAYOUTS = (
    _SPLIT,
    _Layout("", "aux_bn."),  # MixBatchNorm2d of pytorch-classification-advprop and fast_advprop
    _Layout("", "bn_adv."),  # SwitchableBatchNorm2d
    _Layout("main_bn.", "aux_bn."),  # MixLayerNorm of vision transformers
    _Layout("bn.", "aux_bn."),
    _Layout("ln.", "ln_aux."),
    _Layout("bn.0.", "bn.1."),  # DualBatchNorm2d of AugMax
    _Layout("BN_c.", "BN_a."),  # DualBN2d of Once-for-All Adversarial Training
    _Layout("bn_clean.", "bn_adv."),
    _Layout("clean_bn.", "adv_bn."),
    _Layout("clean_bn.", "noise_bn."),
)
_PLAIN = _Layout("", "")  # one norm, for both halves


def load_aux_checkpoint(
    model: ModelT, checkpoint: str | os.PathLike[str] | Mapping[str, Any]
) -> ModelT:
    """Fill both halves of a converted model from another library's checkpoint, in place.

    Understands timm's split batch norms (``bn1.weight``, ``bn1.aux_bn.0.weight``), those of AdvProp
    repositories (``bn1.weight``, ``bn1.aux_bn.weight``), norms that hold two others
    (``bn1.bn.weight``, ``bn1.aux_bn.weight``, and other names of the two; docs/how-to lists them),
    and this package's own keys. Norms may differ in their layout. One without an auxiliary half in
    the checkpoint gives both halves its values, and a warning says so.

    Args:
        model: with dual norms, and otherwise the checkpoint's network.
        checkpoint: a file of ``torch.save`` (tensors alone are read from it, no pickled code is
            run) or a ``.safetensors`` file; or a state dict. Both may hold it under
            ``state_dict`` or ``model``, and its keys may begin with ``module.``.

    Returns:
        `model`.

    Raises:
        ValueError: the model has no dual norms; the file is damaged or holds more than tensors;
            keys are unknown or missing, or tensors have another shape. Nothing has changed.

    Warns:
        UserWarning: norms without an auxiliary half in the checkpoint, and auxiliary norms after
            the first, which are dropped.

    Examples:
        >>> model = entprop_fast.convert_dual_norm(models.create("resnet50", num_classes=1000))
        >>> models.load_aux_checkpoint(model, "model_best.pth.tar")
    """
    norms = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, DualNorm)
    }
    if not norms:
        raise ValueError("model has no dual norms: call entprop_fast.convert_dual_norm(model)")
    state = without_prefix(_read(checkpoint))
    found, plain, dropped = _by_halves(norms, state)
    _check(model.state_dict(), found)
    model.load_state_dict(found)
    notes = []
    if plain:
        notes.append(f"norms without an auxiliary one, which fill both halves: {some(plain)}")
    if dropped:
        notes.append(f"auxiliary norms after the first, which are dropped: {some(dropped)}")
    if notes:
        warnings.warn(f"checkpoint: {'; '.join(notes)}", stacklevel=2)
    return model


def _read(checkpoint: str | os.PathLike[str] | Mapping[str, Any]) -> State:
    if isinstance(checkpoint, Mapping):
        return state_dict_in(checkpoint, "checkpoint: its entries")
    path = Path(checkpoint)
    if not path.is_file():
        raise ValueError(f"checkpoint {str(path)!r}: there is no such file")
    return read_weights(path)


def _by_halves(norms: Mapping[str, DualNorm], state: State) -> tuple[State, list[str], list[str]]:
    """Return the entries under this package's keys; norms without a half; norms that are dropped.

    What no norm claims keeps its key.
    """
    found = dict(state)
    plain: list[str] = []
    dropped: list[str] = []
    for name, norm in norms.items():
        prefix = f"{name}." if name else ""
        own = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        tensors = [key for key in norm.state_dict() if not key.startswith(f"{norm.aux_name}.")]
        layout = _layout_of(own, tensors, norm.aux_name)
        if layout is None:  # the check tells what is missing
            continue
        if layout == _PLAIN:
            plain.append(name or "model")
        further = [key for key in own if layout == _SPLIT and _is_further(key)]
        dropped += dict.fromkeys(f"{prefix}{key.rpartition('.')[0]}" for key in further)
        halves = _halves(own, layout, tensors, norm.aux_name)
        for key in (*further, *(half + tensor for half in layout for tensor in tensors)):
            found.pop(prefix + key, None)
        found |= {prefix + key: value for key, value in halves.items()}
    return found, plain, dropped


def _layout_of(own: State, tensors: list[str], aux_name: str) -> _Layout | None:
    for layout in (_Layout("", f"{aux_name}."), *_LAYOUTS, _PLAIN):
        if all(any(half + tensor in own for tensor in tensors) for half in layout):
            return layout
    return None


def _is_further(key: str) -> bool:
    return key.startswith("aux_bn.") and not key.startswith(_SPLIT.aux)


def _halves(own: State, layout: _Layout, tensors: list[str], aux_name: str) -> State:
    """Return a norm's tensors in both halves, by this package's keys after the norm's own name."""
    found: State = {}
    for half, at in ((layout.main, ""), (layout.aux, f"{aux_name}.")):
        for tensor in tensors:
            if half + tensor in own:
                found[at + tensor] = own[half + tensor]
            elif tensor == "num_batches_tracked":  # older files lack it
                found[at + tensor] = torch.tensor(0)
    return found


def _check(own: Mapping[str, Tensor], found: State) -> None:
    """Refuse what `load_state_dict` would refuse after it has copied a part.

    Raises:
        ValueError: names what is unknown, missing or of another shape or kind.
    """
    unknown = [key for key in found if key not in own]
    missing = [key for key in own if key not in found]
    other = [key for key in own if key in found and not _fits(found[key], own[key])]
    kinds = {"unknown keys": unknown, "missing": missing, "of another shape or kind": other}
    if wrong := [f"{kind}: {some(keys)}" for kind, keys in kinds.items() if keys]:
        raise ValueError(
            f"checkpoint does not fit the model ({'; '.join(wrong)}): make the same network, and "
            "rename keys of a layout that is not known (docs/how-to/from_advprop.md)"
        )


def _fits(given: Tensor, place: Tensor) -> bool:
    kinds = [(one.shape, one.layout, one.is_floating_point()) for one in (given, place)]
    return kinds[0] == kinds[1] and not given.is_meta

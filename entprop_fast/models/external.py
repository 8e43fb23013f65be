"""Networks of timm and torchvision, by their own names, with fresh weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast.names import unknown
from entprop_fast.optional import import_torchvision, load_torchvision, needs

# Training mode would return a tuple of logits otherwise, and a training step takes one loss.
_WITHOUT_SIDE_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def create_timm(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """A timm network; a pretrained tag (``resnet18.a1_in1k``) must exist and loads no weights.

    After the name may follow arguments of its own: ``vit_tiny_patch16_224,img_size=8,patch_size=2``
    takes images of 8x8.

    Raises:
        ValueError: timm does not know the name or the tag, or the network not the arguments.
        ImportError: timm is not installed.
    """
    return _timm(name, num_classes=num_classes, in_chans=in_channels)


def timm_weights(name: str, *, in_channels: int) -> dict[str, Tensor]:
    """The published weights of a timm network, its classifier included, as its state dict.

    timm takes them from its cache or downloads them there, and fits the first convolution to other
    channels.

    Raises:
        ValueError, ImportError: as `create_timm`.
        OSError, RuntimeError: there are none, or they cannot be fetched.
    """
    return _timm(name, pretrained=True, in_chans=in_channels).state_dict()


def torchvision_weights(name: str, tag: str) -> dict[str, Tensor]:
    """torchvision's published weights of a classifier, out of torch.hub's cache or downloaded.

    Args:
        name: torchvision's.
        tag: of the weights, such as ``IMAGENET1K_V1``.

    Raises:
        ValueError: torchvision has no such network, or no such weights of it.
        OSError, RuntimeError: they cannot be fetched, or are damaged.
        ImportError: torchvision cannot be imported.
    """
    models = import_torchvision("models", purpose=f"weights of {name!r}")
    known = models.list_models(module=models)
    if name not in known:
        raise unknown("arch", f"torchvision:{name}", [f"torchvision:{k}" for k in known])
    tags = {one.name: one for one in models.get_model_weights(name)}
    if tag not in tags:
        raise unknown(f"weights of {name!r}", tag, tags)
    # As its get_state_dict, which would run a pickle.
    state: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
        tags[tag].url, map_location="cpu", progress=False, check_hash=True, weights_only=True
    )
    return state


def _timm(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
    with needs("timm", extra="vision", purpose=f"arch 'timm:{name}'"):
        load_torchvision(purpose=f"arch 'timm:{name}'")  # timm imports it
        import timm
    name, *settings = name.split(",")
    arguments: dict[str, Any] = dict(map(_argument, settings))
    if not timm.is_model(name):
        raise unknown("arch", f"timm:{name}", [f"timm:{known}" for known in timm.list_models()])
    arch, dot, _ = name.partition(".")
    if dot and not timm.is_model_pretrained(name):
        tagged = timm.list_pretrained(f"{arch}.*")
        raise unknown("arch", f"timm:{name}", [f"timm:{known}" for known in (arch, *tagged)])
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options, **arguments)
    except (TypeError, ValueError, ArithmeticError, AssertionError) as error:
        if not arguments:
            raise
        given = ",".join(settings)
        raise ValueError(f"arch 'timm:{name}' does not take {given!r}: {error}") from error
    return model


def _argument(setting: str) -> tuple[str, Any]:
    """``key=value``, the value an int, a float or a bool if it reads like one."""
    key, equals, text = setting.partition("=")
    if not (equals and key.isidentifier() and text):
        raise ValueError(
            f"arch: {setting!r} after the name of a timm network must be an argument such as "
            "img_size=8"
        )
    if text in ("True", "False"):
        return key, text == "True"
    for number in (int, float):
        try:
            return key, number(text)
        except ValueError:
            continue
    return key, text


def create_torchvision(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """A torchvision classifier. Side classifiers (GoogLeNet, Inception) are left out.

    For ``in_channels`` other than 3 the first convolution is replaced by one of the same geometry
    with PyTorch's default initialisation; the rest of the network is torchvision's own.

    Raises:
        ValueError: torchvision has no classifier of this name.
        ImportError: torchvision is not installed.
    """
    models = import_torchvision("models", purpose=f"arch 'torchvision:{name}'")
    known = models.list_models(module=models)
    if name not in known:
        raise unknown("arch", f"torchvision:{name}", [f"torchvision:{k}" for k in known])
    options = _WITHOUT_SIDE_CLASSIFIERS.get(name, {})
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if in_channels != 3:
        _replace_first_convolution(model, in_channels)
    return model


def _replace_first_convolution(model: nn.Module, in_channels: int) -> None:
    path, old = next((p, m) for p, m in model.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        # torch types these as tuples of any length.
        kernel_size=(old.kernel_size[0], old.kernel_size[1]),
        stride=(old.stride[0], old.stride[1]),
        padding=old.padding if isinstance(old.padding, str) else (old.padding[0], old.padding[1]),
        dilation=(old.dilation[0], old.dilation[1]),
        bias=old.bias is not None,
    )
    parent, _, attribute = path.rpartition(".")
    setattr(model.get_submodule(parent), attribute, new)

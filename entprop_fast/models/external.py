"""Create networks of timm and torchvision, by their own names, with fresh weights."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from entprop_fast.name_errors import unknown
from entprop_fast.optional import import_torchvision, load_torchvision, require

# Training mode would return a tuple of logits otherwise, and a training step takes one loss.
_WITHOUT_SIDE_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}

# What may follow the name of a timm network: how large its parts are. The string comes out of files
# too (a checkpoint, a recipe, a model's metadata), so nothing passes that names a file, a cache, an
# address or a configuration, or that changes what the network returns.
_COUNTS = (
    "depth depth_token_only embed_dim groups head_dim head_hidden_size img_size kernel_size "
    "num_blocks num_features num_heads num_kv_heads num_levels num_reg_tokens num_rnn_layers "
    "output_stride patch_size pool_size reg_tokens stem_kernel_size stem_size stem_stride "
    "stem_width stride window_size"
).split()
_RATES = (
    "attn_drop_rate drop_block_rate drop_path_rate drop_rate head_drop_rate patch_drop_rate "
    "pos_drop_rate proj_drop_rate"
).split()
_RATIOS = (
    "attn_ratio channel_multiplier deepen_factor depth_mult expand_ratio expansion_ratio "
    "head_init_scale init_values layer_scale_init_value ls_init_value mlp_ratio norm_eps "
    "rope_temperature se_ratio widen_factor width_factor width_mult"
).split()
_SWITCHES = (
    "class_token conv_bias conv_mlp dynamic_img_pad dynamic_img_size final_norm fix_init "
    "no_embed_class pre_norm qk_norm qkv_bias strict_img_size use_abs_pos_emb use_fc_norm "
    "use_grn use_rel_pos_bias use_shared_rel_pos_bias zero_init_last"
).split()
_NAMES = ("act_layer", "global_pool", "norm_layer")  # of timm's own layers
_NAME = re.compile(r"[A-Za-z]\w*")  # no path, no address
_TYPES: dict[str, type] = {
    **dict.fromkeys(_COUNTS, int),
    **dict.fromkeys((*_RATES, *_RATIOS), float),
    **dict.fromkeys(_SWITCHES, bool),
    **dict.fromkeys(_NAMES, str),
}
_VALID = {int: "a whole number", float: "a number", bool: "True or False", str: "a plain name"}
_SWITCH = {"True": True, "False": False}
_LARGEST = 2**31  # no size of a network reaches it
_NETWORK = re.compile(r"[\w.-]+")  # "hf-hub:" and "local-dir:" are addresses to timm


def create_timm(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """Create a timm network; a pretrained tag (``resnet18.a1_in1k``) must exist, and loads nothing.

    After the name may follow arguments of its own: ``vit_tiny_patch16_224,img_size=8,patch_size=2``
    takes images of 8x8. Sizes, counts, rates and the like alone: the string may come out of a file
    of somebody else's, and timm has arguments that load files.

    Raises:
        ValueError: timm does not know the name or the tag, the network not the arguments, or an
            argument is none of those that may be given.
        ImportError: timm is not installed.
    """
    return _timm(name, num_classes=num_classes, in_chans=in_channels)


def timm_weights(name: str, *, in_channels: int) -> dict[str, Tensor]:
    """Return the published weights of a timm network, its classifier included, as its state dict.

    timm takes them from its cache or downloads them there, and fits the first convolution to other
    channels.

    Raises:
        ValueError, ImportError: as `create_timm`.
        OSError, RuntimeError: there are none, or they cannot be fetched.
    """
    return _timm(name, pretrained=True, in_chans=in_channels).state_dict()


def torchvision_weights(name: str, tag: str) -> dict[str, Tensor]:
    """Return torchvision's published weights of a classifier, cached by torch.hub or downloaded.

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


def timm_parts(name: str) -> tuple[str, str, dict[str, Any]]:
    """Take ``NAME.TAG,key=value,...`` apart: name, tag (or nothing) and arguments.

    Raises:
        ValueError: an argument is none of those that may be given.
    """
    name, *settings = name.split(",")
    arch, _, tag = name.partition(".")
    return arch, tag, _arguments(settings)


def _timm(name: str, *, pretrained: bool = False, **options: Any) -> nn.Module:
    require("timm", extra="vision", purpose=f"arch 'timm:{name}'")
    load_torchvision(purpose=f"arch 'timm:{name}'")  # timm imports it
    import timm

    name, *settings = name.split(",")
    arguments = _arguments(settings)
    if not (_NETWORK.fullmatch(name) and timm.is_model(name)):
        raise unknown("arch", f"timm:{name}", [f"timm:{known}" for known in timm.list_models()])
    arch, dot, _ = name.partition(".")
    if dot and not timm.is_model_pretrained(name):
        tagged = timm.list_pretrained(f"{arch}.*")
        raise unknown("arch", f"timm:{name}", [f"timm:{known}" for known in (arch, *tagged)])
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options, **arguments)
    except Exception as error:  # timm raises whatever the arguments lead it to
        if pretrained and not arguments:
            raise
        given = f"does not take {','.join(settings)!r}" if arguments else "cannot be built"
        raise ValueError(f"arch 'timm:{name}' {given}: {error or type(error).__name__}") from error
    return model


def _arguments(settings: list[str]) -> dict[str, Any]:
    """Read ``key=value`` each, of keys that are listed above.

    Raises:
        ValueError: another key, a key twice, or a value that is not of its type.
    """
    found: dict[str, Any] = {}  # numbers, True or False, and names
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not (equals and key and text):
            raise ValueError(
                f"arch: {setting!r} after the name of a timm network must be an argument such as "
                "img_size=8"
            )
        if key not in _TYPES:
            nearest = ", ".join(get_close_matches(key, _TYPES)) or "img_size, drop_rate, ..."
            raise ValueError(
                f"arch: {key!r} may not follow the name of a timm network; sizes, counts and rates "
                f"may: {nearest}"
            )
        if key in found:
            raise ValueError(f"arch: {key} is given twice")
        found[key] = _value(key, text)
    return found


def _value(key: str, text: str) -> int | float | bool | str:
    kind = _TYPES[key]
    try:
        if kind is bool:
            return _SWITCH[text]
        if kind is str:
            return _plain(text)
        return _size(int(text)) if kind is int else _size(_number(text))
    except (KeyError, ValueError):
        raise ValueError(f"arch: {key} must be {_VALID[kind]}, got {text!r}") from None


def _plain(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(text)
    return text


def _number(text: str) -> int | float:
    """Return an int where it reads like one: a ratio must not make a number of channels a float."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _size(value: int | float) -> int | float:
    if not abs(value) < _LARGEST:  # or NaN
        raise ValueError(value)
    return value


def create_torchvision(name: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """Create a torchvision classifier, without side classifiers (GoogLeNet, Inception).

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

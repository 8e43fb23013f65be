"""Recognise norms by their base class, or by their name and what they hold."""

import re

from torch import Tensor, nn
from torch.nn.utils import parametrize

from entprop_fast.layers.recomputed import base_class
from entprop_fast.torch_internals import ConvBase, NormBase, buffers_of, parameters_of

# Batch and instance norms of every kind; also those without parameters.
OF_TORCH = (NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# Other classes go by their names, such as RmsNorm2d, FilterResponseNormTlu2d, T5LayerNorm, MyBN:
# "Norm" as a word of its own (and not NormedLinear, Normalize), or what norms are abbreviated to.
_NAME = re.compile(
    r"(?<!Weight)(?<!Spectral)Norm(?![a-z]|Free)"
    r"|(Layer|Batch|Group|Instance)Normalization"
    r"|([Ll]ayer|[Bb]atch|[Gg]roup|RMS|[Rr]ms)_?norm|Renorm"
    r"|(^|[a-z0-9_])(BN|LN|GN|ABN|FRN|GRN)(\d+d)?$"
    r"|(^|[a-z0-9_])(Abn|Grn|Frn)(\d+d)?$"
    r"|_norm$|^norm$"
)
_WHOLE = re.compile(r"Norm(\d+d)?$")  # nothing after it: no head, block or loss
# "Norm" in the names of these is what they do to weights.
_WEIGHTED = (nn.Linear, nn.Bilinear, nn.Embedding, nn.RNNBase, ConvBase)
_STATISTICS = {"running_mean", "running_var"}
_FROZEN = {"weight", "bias", *_STATISTICS, "num_batches_tracked"}


def looks_like_norm(module: nn.Module) -> bool:
    """Return whether `module` is a norm, by its base class or by its name and what it holds.

    By name alone, it has to hold tensors itself, one of them a value a channel: two halves of what
    has none, as of `nn.LocalResponseNorm`, would not differ, and what wraps a norm as its child is
    none.
    """
    if isinstance(module, OF_TORCH):
        return True
    name = base_class(module).__name__
    if isinstance(module, _WEIGHTED) or not _NAME.search(name):
        return False
    tensors: list[Tensor | None] = [*parameters_of(module).values(), *buffers_of(module).values()]
    if parametrize.is_parametrized(module):
        tensors.extend(module.parametrizations.parameters())  # type: ignore[union-attr]
    return any(is_vector(t) or _WHOLE.search(name) for t in tensors if t is not None)


def is_frozen_class(module: nn.Module) -> bool:
    """Return whether `module` is a batch norm whose tensors are all buffers that nothing moves."""
    names = buffers_of(module).keys()
    return (
        "FrozenBatchNorm" in base_class(module).__name__
        and not parameters_of(module)
        and _STATISTICS <= names <= _FROZEN
    )


def is_vector(tensor: Tensor) -> bool:
    """Return whether a tensor holds a value a channel, or a single one."""
    return sum(size > 1 for size in tensor.shape) <= 1

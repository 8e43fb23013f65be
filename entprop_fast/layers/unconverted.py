"""Find and name the norms that a conversion leaves as they are."""

import re

from torch import Tensor, nn

from entprop_fast.layers.torch_quirks import base_class
from entprop_fast.torch_internals import ConvBase, NormBase, buffers_of, parameters_of

# Batch and instance norms of every kind; also those without parameters.
_BASES = (NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
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


def looks_like_norm(module: nn.Module) -> bool:
    """Return whether `module` is a norm, by its base class or by its name and what it holds.

    By name alone, it has to hold tensors itself, one of them a value a channel: two halves of what
    has none, as of `nn.LocalResponseNorm`, would not differ, and what wraps a norm as its child is
    none.
    """
    if isinstance(module, _BASES):
        return True
    name = base_class(module).__name__
    if isinstance(module, _WEIGHTED) or not _NAME.search(name):
        return False
    tensors = (*parameters_of(module).values(), *buffers_of(module).values())
    return any(is_vector(t) or _WHOLE.search(name) for t in tensors if t is not None)


WAY_OUT = "; convert_dual_norm(model, also=(Class,)) makes the halves of a class copies of the norm"


class Unconverted:
    """Collect the norms left without an auxiliary half, by their class and why."""

    def __init__(self) -> None:
        self._names: dict[tuple[type[nn.Module], str], list[str]] = {}

    def add(self, name: str, module: nn.Module, why: str = "") -> None:
        """Note the module `name` of the model, and why where its class does not say it."""
        self._names.setdefault((base_class(module), why), []).append(name or "model")

    def __bool__(self) -> bool:
        return bool(self._names)

    def __str__(self) -> str:
        """Name each class once, with its count and where its first one is."""
        classes = [cls.__name__ for cls in {cls for cls, _ in self._names}]
        parts = []
        for (cls, why), names in self._names.items():
            shown = cls.__name__
            if classes.count(shown) > 1:  # of two libraries
                shown = f"{cls.__module__}.{shown}"
            where = f"the first is {names[0]}" if len(names) > 1 else names[0]
            parts.append(f"{len(names)} {shown}{why and ' '}{why} ({where})")
        return ", ".join(parts)


def is_vector(tensor: Tensor) -> bool:
    """Return whether a tensor holds a value a channel, or a single one."""
    return sum(size > 1 for size in tensor.shape) <= 1

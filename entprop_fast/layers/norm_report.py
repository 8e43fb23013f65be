"""Tell which norms of a model are dual, which every route shares, and which are frozen."""

from collections import Counter
from typing import Literal, NamedTuple

from torch import nn

from entprop_fast.layers.dual_norm import DualNorm
from entprop_fast.layers.halves import shared_parts
from entprop_fast.layers.norm_kinds import kind_of
from entprop_fast.layers.recognition import is_frozen_class, looks_like_norm
from entprop_fast.layers.recomputed import base_class
from entprop_fast.layers.routing import lost_routing
from entprop_fast.torch_internals import buffers_of

State = Literal["dual", "shared", "frozen"]
_ONE = {"affine": "one affine for both", "statistics": "one set of statistics for both"}


class NormEntry(NamedTuple):
    """Describe one norm of a model.

    Attributes:
        name: of the module, "model" for the root.
        norm: class of the plain norm.
        state: "dual": it has an auxiliary half; "shared": every route takes it; "frozen": nothing
            learns or moves in it as the model stands, be it dual or not.
        note: the half's name, and what it shares with the main one; or what keeps a shared norm
            from having one.
    """

    name: str
    norm: str
    state: State
    note: str


def norm_report(model: nn.Module) -> list[NormEntry]:
    """Print and return, module by module, which norm of `model` is dual, shared or frozen.

    Args:
        model: any network, converted or not.

    Returns:
        An entry a norm, in the order of ``model.named_modules()``; empty where there is none.

    Example:
        >>> model = convert_dual_norm(nn.Sequential(nn.BatchNorm2d(8), FrozenBatchNorm2d(8)))
        >>> entries = norm_report(model)
        0  BatchNorm2d        dual    aux_bn
        1  FrozenBatchNorm2d  frozen  aux_bn
        2 norms: 1 dual, 1 frozen
        >>> [entry.name for entry in entries if entry.state == "shared"]
        []
    """
    entries: list[NormEntry] = []
    inside: set[int] = set()  # of a half: no norm of the model's
    for name, module in model.named_modules():
        if id(module) in inside:
            continue
        if isinstance(module, DualNorm):
            inside.update(map(id, module.aux.modules()))
            entries.append(_entry(name, module, module.aux))
        elif looks_like_norm(module):
            entries.append(_entry(name, module, None))
    for line in _lines(entries):
        print(line)
    return entries


def _entry(name: str, norm: nn.Module, half: nn.Module | None) -> NormEntry:
    state: State = "shared" if half is None else "dual"
    if all(_stands_still(part) for part in (norm, half) if part is not None):
        state = "frozen"
    if isinstance(norm, DualNorm):
        shared = "".join(f", {_ONE[part]}" for part in sorted(shared_parts(norm)))
        return NormEntry(name or "model", norm.plain_class.__name__, state, norm.aux_name + shared)
    note = kind_of(norm)[1].removeprefix("that is ") or "convert_dual_norm(model) makes it dual"
    if lost_routing(norm):
        note = "lost its routing: call convert_dual_norm(model) again"
    return NormEntry(name or "model", base_class(norm).__name__, state, note)


def _stands_still(norm: nn.Module) -> bool:
    """Return whether `norm` has tensors and nothing learns or moves them."""
    half = getattr(norm, "aux_name", None)
    learned = [p for name, p in norm.named_parameters() if name.partition(".")[0] != half]
    buffers = [b for b in buffers_of(norm).values() if b is not None]
    moves = (
        norm.training
        and bool(buffers)
        and getattr(norm, "track_running_stats", True)
        and not is_frozen_class(norm)
    )
    return bool(learned or buffers) and not moves and not any(p.requires_grad for p in learned)


def _lines(entries: list[NormEntry]) -> list[str]:
    """Align the columns, and count."""
    widths = [max(map(len, column)) for column in zip(*entries, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(entry, widths, strict=True)).rstrip()
        for entry in entries
    ]
    counts = Counter(entry.state for entry in entries)
    counted = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    return [*lines, f"{len(entries)} norms: {counted or 'none'}"]

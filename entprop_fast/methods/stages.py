"""Find the stages of a network, between which its features can be mixed."""

import math

from torch import nn

from entprop_fast.name_errors import unknown

INPUT = "input"
_PICKED = 3  # as of the networks of NoisyMix, whose groups of blocks are three or four
_NEARLY_ALL = 0.9  # of the parameters: a body rather than a stage; a ResNet's last has .76
_MOST = 0.5
_LISTS = (nn.ModuleList, nn.ModuleDict)  # which nothing calls

Named = tuple[str, nn.Module]


def candidates(model: nn.Module, names: str | None) -> dict[str, nn.Module | None]:
    """Return the modules whose outputs can be mixed, by name; "input" stands for the images.

    Args:
        model: the network.
        names: of modules, joined by commas; None for the input and the `stages` of the model.

    Raises:
        ValueError: the model has no module of a name.
    """
    if names is None:
        return {INPUT: None} | dict(stages(model))
    modules = dict(model.named_modules())
    found: dict[str, nn.Module | None] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name != INPUT and (not name or name not in modules):
            raise unknown("layers", name, (INPUT, *filter(None, modules)))
        found[name] = None if name == INPUT else modules[name]
    if not found:
        raise ValueError(f"layers={names!r}: expected names of modules, such as 'input,layer1'")
    return found


def stages(model: nn.Module) -> list[Named]:
    """Return up to three stages of `model`, with their names, in the order of definition.

    Looked at are the children that hold parameters, those of a list one by one, without the last
    of the first level that has several, which is the head. Where one of them has over nine tenths
    of their parameters, or is the one `nn.Sequential` and has over half, its own children take
    their place. The stages are those that are `nn.Sequential` where these are several and have over
    half of the parameters, else all. Of more than three, those are returned that end nearest to
    one, two and three quarters.

    In a ResNet, ours or others', that is ``layer1`` to ``layer3``, as in NoisyMix; of a ViT's
    twelve blocks the third, sixth and ninth.
    """
    parts, headless = [("", model)], False
    while True:
        if not headless and len(parts) > 1:
            parts, headless = parts[:-1], True
        body, all_of_them = max(parts, key=lambda part: _size(part[1])), _total(parts)
        groups = [part for part in parts if isinstance(part[1], nn.Sequential)]
        share = _MOST if groups == [body] else _NEARLY_ALL
        inside = _children(*body)
        if _size(body[1]) <= share * all_of_them or not inside:
            break
        parts = inside
    if not headless:  # one layer, whose output are the logits
        return []
    if len(groups) > 1 and _total(groups) > _MOST * all_of_them:
        parts = groups
    if len(parts) <= _PICKED:
        return parts
    ends = [math.floor(len(parts) * i / (_PICKED + 1) + 0.5) for i in range(1, _PICKED + 1)]
    return [parts[end - 1] for end in ends]


def _children(name: str, module: nn.Module) -> list[Named]:
    """Return the children that hold parameters, with their names."""
    found: list[Named] = []
    for short, child in module.named_children():
        full = f"{name}.{short}" if name else short
        if type(child) in _LISTS:
            found += _children(full, child)
        elif _size(child):
            found.append((full, child))
    return found


def _total(parts: list[Named]) -> int:
    return sum(_size(module) for _, module in parts)


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

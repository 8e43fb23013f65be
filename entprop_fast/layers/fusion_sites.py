"""Find in the graph of a block the norms that a ReLU follows, and compute both in one pass."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.nn import functional as F

from entprop_fast.layers.batch_norms import DualBatchNorm2d
from entprop_fast.layers.torch_quirks import has_hooks
from entprop_fast.torch_internals import ConvBase

_RELUS: dict[object, bool] = {  # whether it writes into its input
    **dict.fromkeys((F.relu, torch.relu, "relu"), False),
    **dict.fromkeys((torch.relu_, F.relu_, "relu_"), True),
}
_ADDS: dict[object, bool] = {
    **dict.fromkeys((operator.add, torch.add, "add"), False),
    **dict.fromkeys((operator.iadd, "add_"), True),
}


@dataclass
class Site:
    """Hold the nodes of ``relu(norm(x) + residual?)``.

    Attributes:
        norm: the call of a dual batch norm.
        relu: the last node.
        before: calls of `nn.Identity` between norm and sum.
        after: likewise between sum and ReLU.
        add: the sum, if there is one.
        residual: the other operand.
        second: whether the norm is the sum's second operand.
    """

    norm: Node
    relu: Node
    before: list[Node] = field(default_factory=list)
    after: list[Node] = field(default_factory=list)
    add: Node | None = None
    residual: Node | None = None
    second: bool = False

    @property
    def nodes(self) -> list[Node]:
        """Return the nodes that one call takes the place of, in their order."""
        add = [self.add] if self.add else []
        return [self.norm, *self.before, *add, *self.after, self.relu]

    @property
    def place(self) -> Node:
        """Return the node in whose place all is computed: there its operands are as they were."""
        return self.add or self.norm


def find_sites(graph: Graph, block: nn.Module) -> tuple[list[Site], dict[str, str]]:
    """Return what can be fused, and by a norm's path from `block` why one of its calls cannot."""
    sites: list[Site] = []
    why: dict[str, str] = {}
    taken: set[Node] = set()
    # The later of two norms that are added needs no waiting: it comes first here.
    for node in reversed(graph.nodes):
        if node.op != "call_module" or not is_bare(_module(block, node)):
            continue
        found = _follow(node, block)
        if isinstance(found, Site) and found.relu in taken:
            found = "its sum is fused with another norm"
        if isinstance(found, Site):
            found = _reason_to_stay(found, block) or found
        if isinstance(found, Site):
            taken.add(found.relu)
            sites.append(found)
        else:
            why[str(node.target)] = found
    return sites, why


def _follow(norm: Node, block: nn.Module) -> Site | str:
    """Follow the output of a norm to a ReLU."""
    if len(norm.args) != 1 or norm.kwargs or not isinstance(norm.args[0], Node):
        return "it is not called with one tensor"
    site, at = Site(norm, norm), norm
    while True:
        if len(at.users) != 1:
            return f"its output is used {len(at.users)} times"
        user = next(iter(at.users))
        if _is_relu(user, block):
            site.relu = user
            return site
        if user.op == "call_module" and type(_module(block, user)) is nn.Identity:
            (site.after if site.add else site.before).append(user)
        elif site.add is None and (other := _other_operand(user, at)) is not None:
            site.add, site.residual, site.second = user, other, user.args[0] is not at
        else:
            return f"what follows is {user.name}, neither ReLU nor a plain sum"
        at = user


def _is_relu(node: Node, block: nn.Module) -> bool:
    if node.op == "call_module":
        return type(_module(block, node)) is nn.ReLU and len(node.args) == 1 and not node.kwargs
    if node.op not in ("call_function", "call_method") or node.target not in _RELUS:
        return False
    settings = (*node.args[1:], *node.kwargs.values())
    return (
        bool(node.args)
        and node.kwargs.keys() <= {"inplace"}
        and all(isinstance(setting, bool) for setting in settings)
    )


def _other_operand(node: Node, norm: Node) -> Node | None:
    """Return what a sum adds to a norm's output; None where it is none, or not a plain one."""
    if node.op not in ("call_function", "call_method") or node.target not in _ADDS:
        return None
    if len(node.args) != 2 or node.kwargs.get("alpha", 1) != 1 or node.kwargs.keys() - {"alpha"}:
        return None
    first, second = node.args
    if first is second or not (isinstance(first, Node) and isinstance(second, Node)):
        return None
    if _ADDS[node.target] and first is not norm:
        return None  # it writes into the other one, which somebody may read
    return second if first is norm else first


def _reason_to_stay(site: Site, block: nn.Module) -> str | None:
    """Tell why a norm cannot wait until its residual is there; None where it can, or need not."""
    order = list(site.norm.graph.nodes)
    if not set(order[order.index(site.norm) : order.index(site.place)]) - set(site.nodes):
        return None
    source, norm = site.norm.args[0], _module(block, site.norm)
    assert isinstance(source, Node)
    # What a convolution gave nobody else holds: nobody can change it meanwhile.
    fresh = source.op == "call_module" and isinstance(_module(block, source), ConvBase | nn.Linear)
    if not fresh or len(source.users) != 1:
        return "what it normalises may change before its sum"
    for node in order:
        if node is site.norm:
            continue
        if node.op == "get_attr" and f"{node.target}".startswith(f"{site.norm.target}."):
            return "its tensors are used elsewhere"
        called = _module(block, node) if node.op == "call_module" else None
        if called is not None and any(module is norm for module in called.modules()):
            return "it is called again"
    return None


def rewrite(site: Site, block: nn.Module) -> None:
    """Put one call in the place of the nodes of a site."""
    graph, relu = site.norm.graph, site.relu
    with graph.inserting_before(site.place):
        norm, *before = (graph.get_attr(str(n.target)) for n in (site.norm, *site.before))
        after = [graph.get_attr(str(node.target)) for node in site.after]
        module = graph.get_attr(str(relu.target)) if relu.op == "call_module" else None
        settings: dict[str, Any] = {
            "before": before,
            "after": after,
            "second": site.second,
            "add_writes": site.add is not None and _ADDS[site.add.target],
            "relu_writes": module is None and _writes(relu),
        }
        operands = (norm, site.norm.args[0], site.residual, module)
        fused = graph.call_function(norm_add_relu, operands, settings)
    relu.replace_all_uses_with(fused)
    for node in reversed(site.nodes):
        graph.erase_node(node)


def _writes(relu: Node) -> bool:
    return _RELUS[relu.target] or True in (*relu.args[1:], *relu.kwargs.values())


def norm_add_relu(
    norm: nn.Module,
    x: Tensor,
    residual: Tensor | None,
    relu: nn.Module | None,
    *,
    before: list[nn.Module],
    after: list[nn.Module],
    second: bool,
    add_writes: bool,
    relu_writes: bool,
) -> Tensor:
    """Compute ``relu(norm(x) + residual?)`` in one pass, or as the block does where it has to.

    Args:
        norm: a dual batch norm, or what somebody has put in its place.
        x: what it normalises.
        residual: what is added, None without a sum.
        relu: the module, None for the function.
        before: modules between norm and sum, `nn.Identity` unless somebody replaced them.
        after: likewise between sum and ReLU.
        second: the block adds the norm's output to the residual rather than the other way round.
        add_writes: the sum writes into the norm's output.
        relu_writes: the function writes into its input.
    """
    plain = (relu is None or _is_plain(relu, nn.ReLU)) and all(
        _is_plain(one, nn.Identity) for one in (*before, *after)
    )
    if plain and _takes_over(norm) and _fits(residual, x):
        fused: Tensor = norm(x, residual, relu=True)
        return fused
    y: Tensor = norm(x)
    for one in before:
        y = one(y)
    if residual is not None and add_writes:
        y += residual
    elif residual is not None:
        y = residual + y if second else y + residual
    for one in after:
        y = one(y)
    return F.relu(y, inplace=relu_writes) if relu is None else relu(y)


def is_bare(module: nn.Module) -> bool:
    """Return whether `module` is a 2-d dual batch norm that does nothing after normalising."""
    if not isinstance(module, DualBatchNorm2d):
        return False
    if type(module).forward is DualBatchNorm2d.forward:
        return True
    after = [getattr(module, name, None) for name in ("drop", "act")]  # timm's BatchNormAct2d
    return all(one is not None and _is_plain(one, nn.Identity) for one in after)


def _takes_over(norm: nn.Module) -> bool:
    """Return whether `norm` adds and applies ReLU itself, and nothing looks at its own output."""
    return is_bare(norm) and not has_hooks(norm) and "forward" not in vars(norm)


def _is_plain(module: nn.Module, cls: type[nn.Module]) -> bool:
    return type(module) is cls and not has_hooks(module) and "forward" not in vars(module)


def _fits(residual: Any, x: Tensor) -> bool:
    """Return whether a sum neither broadcasts nor promotes."""
    return residual is None or (
        isinstance(residual, Tensor)
        and residual.shape == x.shape
        and residual.dtype == x.dtype
        and residual.device == x.device
    )


def _module(block: nn.Module, node: Node) -> nn.Module:
    return block.get_submodule(str(node.target))

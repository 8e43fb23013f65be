"""Define a dual norm: two halves, a route between them, one state dict.

What PyTorch's features need on top of that is in torch_quirks.py.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from entprop_fast.layers.torch_quirks import (
    PendingRoutes,
    Routed,
    checkpoint_region,
    scratch_buffers,
    trace_as_leaf,
)
from entprop_fast.torch_internals import buffers_of, parameters_of, running_backward

P = ParamSpec("P")
ResultT = TypeVar("ResultT")


class DualNorm(Routed):
    """Give a norm class an auxiliary half and a route, as a mixin in front of it.

    The norm itself is the main half (its parameters keep their names), the child named by
    `aux_name` the auxiliary one. Rows ``[0, num_main)`` of the first dimension are normalised by
    the main half, the rest by the auxiliary one; ``num_main = None`` means all rows are main.
    """

    transient = ("num_main", "route_batch", "inside", "_routed", "_pending")
    aux_name: ClassVar[str]
    plain_class: ClassVar[type[nn.Module]]  # what the layer is made from and stripped to
    norm_class: ClassVar[type[nn.Module]]  # the main half alone, without an activation
    half_class: ClassVar[type[nn.Module]]  # the auxiliary half, a `norm_class`
    num_main: int | None = None
    route_batch: int | None = None  # rows of the batch, where the first dimension is another
    inside: bool = False  # a route, "main" included
    _routed: bool = False  # whether it ever was
    _pending: PendingRoutes | None = None

    @property
    def aux(self) -> nn.Module:
        """Return the auxiliary half."""
        half = getattr(self, self.aux_name)
        assert isinstance(half, nn.Module)
        return half

    def main_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the main half's own parameters, or what a parametrisation computes them from."""
        yield from self.parameters(recurse=False)
        if parametrize.is_parametrized(self):
            yield from self.parametrizations.parameters()  # type: ignore[union-attr]

    def set_route(self, num_main: int | None, batch: int | None, inside: bool) -> None:
        """Choose the route of the coming forwards; use `entprop_fast.route`, which restores it."""
        # Past nn.Module.__setattr__: a step routes every layer several times.
        self.__dict__.update(num_main=num_main, route_batch=batch, inside=inside, _routed=True)

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, of any shape the plain norm takes, along the current route."""
        return self.along_route(self.normalise, input)

    def along_route(
        self,
        normalise: Callable[Concatenate[Tensor, int | None, P], ResultT],
        x: Tensor,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> ResultT:
        """Call a method of this with `x`, how many rows of it are main now, and what else came."""
        if self._routed and not torch.compiler.is_compiling() and running_backward() is not None:
            # A forward inside a backward pass is a checkpoint's, which computes again.
            route = (self._pending or PendingRoutes()).the_only_one(type(self).__name__)
            with scratch_buffers(self, self.aux):
                return normalise(x, self._rows(x, *route), *args, **kwargs)
        region = checkpoint_region()
        if region is not None:
            if self._pending is None:
                self._pending = PendingRoutes()
            self._pending.add(region, (self.num_main, self.route_batch))
        return normalise(x, self._rows(x, self.num_main, self.route_batch), *args, **kwargs)

    def normalise(self, x: Tensor, num_main: int | None) -> Tensor:
        """Normalise rows ``[0, num_main)`` by the main half, the rest by the auxiliary one."""
        if num_main is None:
            return self.forward_main(x)
        if num_main == 0:  # first, so that an empty batch on "aux" leaves the main half alone
            return self.forward_aux(x)
        if num_main == x.shape[0]:
            return self.forward_main(x)
        # Not two slices: each one's backward would fill and add a gradient of all rows.
        main, aux = x.split_with_sizes([num_main, x.shape[0] - num_main])
        return torch.cat((self.forward_main(main), self.forward_aux(aux)))

    def forward_main(self, x: Tensor) -> Tensor:
        """Normalise all of `x` with the main half."""
        y: Tensor = self.norm_class.forward(self, x)
        return y

    def forward_aux(self, x: Tensor) -> Tensor:
        """Normalise all of `x` with the auxiliary half."""
        y: Tensor = self.aux(x)
        return y

    def _rows(self, x: Tensor, num_main: int | None, batch: int | None) -> int | None:
        """Return how many rows of `x` are main, where the route counts those of the batch."""
        if num_main is None:
            return None
        rows = x.shape[0] if x.ndim else 0
        m, remainder = (num_main, 0) if batch is None else divmod(num_main * rows, batch)
        if remainder:
            raise ValueError(
                f"route: {num_main} of batch={batch} rows are no whole number of the {rows} rows "
                f"that {type(self).__name__} got"
            )
        if not 0 <= m <= rows:
            raise ValueError(
                f"route: target={num_main} is outside [0, {rows if batch is None else batch}], "
                "the rows of the batch"
            )
        return m

    def _load_from_state_dict(
        self,
        state: dict[str, Any],
        prefix: str,
        metadata: Any,
        strict: bool,
        missing: list[str],
        *args: Any,
    ) -> None:
        """Fill the auxiliary half of a plain checkpoint with clones of its main entries."""
        aux_prefix = f"{prefix}{self.aux_name}."
        own = self.aux.state_dict(prefix=aux_prefix, keep_vars=True)
        if absent := own.keys() & missing:  # listed by the root: a damaged dual checkpoint
            state.update({key: own[key] for key in absent})
        elif not any(key.startswith(aux_prefix) for key in state):
            for key in own:  # also what a hook or a parametrisation computes the tensors from
                if isinstance(value := state.get(prefix + key[len(aux_prefix) :]), Tensor):
                    state[key] = value.clone()
        for key, value in own.items():  # what the halves share is the main one's
            main = prefix + key[len(aux_prefix) :]
            if main in state and value is self._held(key[len(aux_prefix) :]):
                state[key] = state[main]
        super()._load_from_state_dict(state, prefix, metadata, strict, missing, *args)

    def _held(self, name: str) -> Tensor | None:
        """Return the main half's parameter or buffer of a name."""
        *path, last = name.split(".")
        module = self.get_submodule(".".join(path))
        return parameters_of(module).get(last, buffers_of(module).get(last))

    if not TYPE_CHECKING:  # nn.Module's own annotation says more

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Be a leaf of what torch.fx traces: its graphs route too."""
            leaf = trace_as_leaf(self, args, kwargs)
            return super().__call__(*args, **kwargs) if leaf is None else leaf

    def __prepare_scriptable__(self) -> Self:
        """Refuse torch.jit.script, which asks every module first."""
        raise RuntimeError(
            f"torch.jit.script cannot compile the routes of a {type(self).__name__}: script "
            "entprop_fast.strip_auxiliary(copy.deepcopy(model)), or use torch.jit.trace"
        )

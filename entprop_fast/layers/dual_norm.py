"""What all dual layers share: choosing a half for each row, and the state dict."""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn.utils import parametrize

from entprop_fast.layers.halves import Routed

Route = tuple[int | None, int | None]  # num_main, route_batch


class DualNorm(Routed):
    """Mixin in front of a norm class: gives it an auxiliary half and a route.

    The norm itself is the main half (its parameters keep their names), the child named by
    `aux_name` the auxiliary one. Rows ``[0, num_main)`` of the first dimension are normalised by
    the main half, the rest by the auxiliary one; ``num_main = None`` means all rows are main.
    """

    # Nor does what it is stripped to keep these.
    transient = ("num_main", "route_batch", "inside", "_routed", "_pending")
    aux_name: ClassVar[str]
    plain_class: ClassVar[type[nn.Module]]  # what the layer is made from and stripped to
    norm_class: ClassVar[type[nn.Module]]  # the main half alone, without an activation
    half_class: ClassVar[type[nn.Module]]  # the auxiliary half, a `norm_class`
    num_main: int | None = None
    route_batch: int | None = None  # rows of the batch, where the first dimension is another
    inside: bool = False  # a route, "main" included
    _routed: bool = False  # whether it ever was
    _pending: "weakref.WeakKeyDictionary[Callable[..., Any], set[Route]] | None" = None

    @property
    def aux(self) -> nn.Module:
        """The auxiliary half."""
        half = getattr(self, self.aux_name)
        assert isinstance(half, nn.Module)
        return half

    def main_parameters(self) -> Iterator[nn.Parameter]:
        """The main half's own, or what a parametrisation computes them from."""
        yield from self.parameters(recurse=False)
        if parametrize.is_parametrized(self):
            yield from self.parametrizations.parameters()  # type: ignore[union-attr]

    def set_route(self, num_main: int | None, batch: int | None, inside: bool) -> None:
        """Choose the route of the coming forwards; use `entprop_fast.route`, which restores it."""
        # Past nn.Module.__setattr__: a step routes every layer several times.
        self.__dict__.update(num_main=num_main, route_batch=batch, inside=inside, _routed=True)

    if not TYPE_CHECKING:  # nn.Module's own annotation says more

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Be a leaf of what torch.fx traces, as torch's own norms are: its graphs route too."""
            x = args[0] if args else next(iter(kwargs.values()), None)
            if isinstance(x, Proxy):
                return _as_leaf(self, x.tracer, args, kwargs)
            return super().__call__(*args, **kwargs)

    def __prepare_scriptable__(self) -> Self:
        """Refuse torch.jit.script, which asks every module first."""
        raise RuntimeError(
            f"torch.jit.script cannot compile the routes of a {type(self).__name__}: script "
            "entprop_fast.strip_auxiliary(copy.deepcopy(model)), or use torch.jit.trace"
        )

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input`, of any shape the plain norm takes, along the current route."""
        return self._forward(input)

    def _forward(self, x: Tensor, **after: Any) -> Tensor:
        """`forward`, with what a subclass's `normalise` takes besides."""
        # A forward inside a backward pass is a checkpoint's, which computes again.
        compiling = torch.compiler.is_compiling()
        if self._routed and not compiling and torch._C._current_graph_task_id() != -1:
            return self._recompute(x, after)
        self._remember_route()
        return self._along(x, (self.num_main, self.route_batch), after)

    def forward_main(self, x: Tensor) -> Tensor:
        """Normalise all of `x` with the main half."""
        y: Tensor = self.norm_class.forward(self, x)
        return y

    def forward_aux(self, x: Tensor) -> Tensor:
        """Normalise all of `x` with the auxiliary half."""
        y: Tensor = self.aux(x)
        return y

    def normalise(self, x: Tensor, num_main: int | None) -> Tensor:
        """Rows ``[0, num_main)`` of `x` by the main half, the rest by the auxiliary one."""
        if num_main is None:
            return self.forward_main(x)
        if num_main == 0:  # first, so that an empty batch on "aux" leaves the main half alone
            return self.forward_aux(x)
        if num_main == x.shape[0]:
            return self.forward_main(x)
        return torch.cat((self.forward_main(x[:num_main]), self.forward_aux(x[num_main:])))

    def _along(self, x: Tensor, route: Route, after: dict[str, Any]) -> Tensor:
        num_main, batch = route
        if num_main is not None:
            num_main = self._scaled(num_main, x.shape[0] if x.ndim else 0, batch)
        return self.normalise(x, num_main, **after)

    def _scaled(self, num_main: int, rows: int, batch: int | None) -> int:
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

    def _remember_route(self) -> None:
        """Keep the route for as long as a checkpoint may ask this layer to compute again."""
        hook = checkpoint_hook()
        if hook is None:
            return
        if self._pending is None:
            self._pending = weakref.WeakKeyDictionary()
        self._pending.setdefault(hook, set()).add((self.num_main, self.route_batch))

    def _recompute(self, x: Tensor, after: dict[str, Any]) -> Tensor:
        routes = set().union(*(self._pending or {}).values())
        if len(routes) != 1:
            known = "no route is known" if not routes else f"{len(routes)} routes are pending"
            raise RuntimeError(
                f"{type(self).__name__} is run again inside a backward pass and {known} for it: "
                "with torch.utils.checkpoint use use_reentrant=False and run backward after each "
                "routed forward, before the next one"
            )
        with _scratch_buffers(self), _scratch_buffers(self.aux):
            return self._along(x, routes.pop(), after)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        *args: Any,
    ) -> None:
        """Fill the auxiliary half of a plain checkpoint with clones of its main entries."""
        aux_prefix = f"{prefix}{self.aux_name}."
        own = self.aux.state_dict(prefix=aux_prefix, keep_vars=True)
        if missing := own.keys() & missing_keys:  # by the root: a damaged dual checkpoint
            state_dict.update({key: own[key] for key in missing})
        elif not any(key.startswith(aux_prefix) for key in state_dict):
            for key in own:  # also what a hook or a parametrisation computes the tensors from
                if isinstance(value := state_dict.get(prefix + key[len(aux_prefix) :]), Tensor):
                    state_dict[key] = value.clone()
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, *args
        )


def _as_leaf(
    module: nn.Module, tracer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Proxy:
    def record(*args: Any, **kwargs: Any) -> Proxy:
        proxy: Proxy = tracer.create_proxy(
            "call_module", tracer.path_of_module(module), args, kwargs
        )
        return proxy

    # A tracer asks whether the class is torch's; by its own way in, it still notes where this is.
    proxy: Proxy = tracer.call_module(module, record, args, kwargs)
    return proxy


def checkpoint_hook() -> Callable[..., Any] | None:
    """What identifies the `torch.utils.checkpoint` region that runs now, None outside of one.

    The tensors that the region saved hold it: it lives until backward has freed them, or the graph
    is gone.
    """
    if torch.compiler.is_compiling():  # the compiler splits what is checkpointed by itself
        return None
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    of_checkpoint = torch.utils.checkpoint.__name__
    if hooks is None or getattr(hooks[1], "__module__", None) != of_checkpoint:
        return None
    unpack: Callable[..., Any] = hooks[1]
    return unpack


@contextlib.contextmanager
def _scratch_buffers(norm: nn.Module) -> Iterator[None]:
    """Let a recomputation move clones: the forward has moved the running statistics already.

    Not passing any to it would save fewer tensors than the forward did, which checkpoint refuses.
    """
    buffers = dict(norm._buffers)
    norm._buffers.update({k: v if v is None else v.clone() for k, v in buffers.items()})
    try:
        yield
    finally:
        norm._buffers.update(buffers)

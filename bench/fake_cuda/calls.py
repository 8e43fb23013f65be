"""What a block of code asks of PyTorch: every op below autograd, with its tensors by their role."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode


class Call:
    """An op that was called.

    Attributes:
        name: "aten.add_".
        function: the op, without its overload.
        args, kwargs: as it got them.
        values: the same by the names of its schema.
        written: names of the arguments that it changes.
        result: what it returned.
        fresh: the tensors among that which have memory of their own.
    """

    def __init__(self, op: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        self.function, self.name = op.overloadpacket, str(op.overloadpacket)
        self.args, self.kwargs, self.result = args, kwargs, result
        schema = op._schema
        names = [argument.name for argument in schema.arguments]
        self.values: dict[str, Any] = dict(zip(names, args, strict=False)) | kwargs
        self.written = [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write]
        results = result if len(schema.returns) > 1 else [result]
        self.fresh: list[Tensor] = [
            tensor
            for declared, value in zip(schema.returns, results, strict=bool(schema.returns))
            if declared.alias_info is None
            for tensor in tensors_of(value)
        ]

    def read(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [tensor for value in self.values.values() for tensor in tensors_of(value)]


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors in an argument or a result: one, several or none."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from tensors_of(one)


class Calls(TorchDispatchMode):
    """Tells `seen` of every call in its block."""

    def __init__(self, seen: Callable[[Call], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        self.seen(Call(func, args, kwargs or {}, result))
        return result

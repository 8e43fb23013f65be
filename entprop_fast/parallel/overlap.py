"""Launch the buckets of gradients while the last backward pass of a step still runs."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from entprop_fast.parallel.buckets import Buckets
from entprop_fast.torch_internals import backward_reaches


class LastPass:
    """Watch which gradients the last backward pass still adds to.

    A bucket is launched when its parameters get no further gradient: at once if the pass does not
    reach them (norms of the other kind), else when it has added to the last of them. Only the
    order of launches is the same in all processes, not their moments.

    Args:
        parameters: that get gradients, in their order.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._learned = parameters
        self._most = [0] * len(parameters)  # additions in one pass; several with nested passes

    @contextlib.contextmanager
    def watch(self, buckets: Buckets | None) -> Iterator[None]:
        """Launch `buckets` from within the backward pass of the block; None: learn from it alone.

        Raises:
            RuntimeError: a gradient was added to after its bucket had been launched.
        """
        seen = [0] * len(self._learned)
        left: list[int] | None = None  # additions to come, known when the backward pass has begun
        late: list[int] = []
        streams: set[torch.cuda.Stream] = set()

        def added(position: int) -> None:
            nonlocal left
            seen[position] += 1
            if buckets is None:
                return
            if left is None:
                left = [max(*pair) for pair in zip(self._most, self._to_come(), strict=True)]
            left[position] -= 1
            if left[position] < 0 and position in sent:
                late.append(position)
            _remember_stream(self._learned[position], streams)
            while (bucket := buckets.next) is not None:
                if any(left[one] > 0 for one in bucket):
                    return
                _wait_for(streams)
                if not buckets.launch_without_waiting():
                    return
                sent.update(bucket)

        sent: set[int] = set()
        handles = [
            parameter.register_post_accumulate_grad_hook(_call_with(added, position))
            for position, parameter in enumerate(self._learned)
            if parameter.requires_grad
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self._most = [max(*pair) for pair in zip(self._most, seen, strict=True)]
        if late:
            raise RuntimeError(
                f"parameter {late[0]} got another gradient after those of its bucket had been "
                "sent to the other processes: checkpointed segments that share a parameter, "
                "with another number of them than before; use checkpoint(use_reentrant=False)"
            )

    def _to_come(self) -> list[int]:
        """Return of each parameter whether the backward pass that has begun adds to it."""
        return [
            int(p.requires_grad and backward_reaches(get_gradient_edge(p).node))
            for p in self._learned
        ]


def _call_with(added: Callable[[int], None], position: int) -> Callable[[Tensor], None]:
    return lambda _: added(position)


def _remember_stream(parameter: Tensor, streams: "set[torch.cuda.Stream]") -> None:
    if parameter.is_cuda:
        streams.add(torch.cuda.current_stream(parameter.device))


def _wait_for(streams: "set[torch.cuda.Stream]") -> None:
    """Let the current stream wait for all that added gradients since the last launch."""
    for stream in streams:
        current = torch.cuda.current_stream(stream.device)
        if stream != current:
            current.wait_stream(stream)
    streams.clear()

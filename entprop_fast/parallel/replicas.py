"""Keep the copies of a network in several processes alike by one exchange a step."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator

from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from entprop_fast.parallel.agreement import Agreement, Disagreement
from entprop_fast.parallel.flat import in_one
from entprop_fast.parallel.rows import world_size
from entprop_fast.parallel.sharded import Sharded, check_wrappers
from entprop_fast.sharding import is_sharded
from entprop_fast.torch_internals import reset_reducer, settings_of_passes

_GRADIENTS = "the mean of the gradients"
_INSTEAD = {
    "mixed_precision": "leave it out and use amp='bf16'",
    "join()": "give every process as many batches",
}


class Alone:
    """A network that this process alone keeps.

    Attributes:
        averages: whether a step averages its gradients over the processes.
        collective: whether a pass itself exchanges tensors with the other processes.
    """

    averages = False
    collective = False

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement

    @contextlib.contextmanager
    def exchange(self, alike: dict[str, object]) -> Iterator[None]:
        """Surround all passes of a step, for which `alike` has to be the same in all processes."""
        self._agreement.agree("a step", alike)
        yield

    def ready(self, *, step: bool) -> None:
        """Get ready for a call, of a whole step or of its passes alone: nothing to do."""

    def check_unchanged(self) -> None:
        """Accept a network whose modules are others than before."""


def warn_unless_wrapped(model: nn.Module, stacklevel: int) -> None:
    """Warn where nobody keeps the networks of several processes alike."""
    processes, kept = world_size(), isinstance(model, DistributedDataParallel) or is_sharded(model)
    if processes > 1 and not kept:
        warnings.warn(
            f"model is not wrapped and the process group has {processes} processes: each trains a "
            "network of its own, and they drift apart. Pass DistributedDataParallel(model) or "
            "fully_shard(model), or average the gradients yourself between "
            "method.backward(images, labels) and the optimizer's step",
            RuntimeWarning,
            stacklevel=stacklevel + 1,
        )


def unwrap(
    model: nn.Module, criterion: nn.Module | None, agreement: Agreement, *, mean: bool = True
) -> "tuple[nn.Module, Alone | Replicas | Sharded]":
    """Find the network that the passes of a step run, and what surrounds all of them.

    Args:
        model: a `DistributedDataParallel`, a network after `fully_shard`, or one that this process
            alone keeps.
        criterion: the loss of a method. Under a `DistributedDataParallel` its parameters and
            buffers become those of rank 0, and its gradients are averaged with the network's.
        agreement: of the method.
        mean: see `Replicas`.

    Raises:
        ValueError: a wrapper inside of `model`, around `criterion`, or with settings that a step
            would pass over; or threads in place of processes (`nn.DataParallel`).
    """
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        raise ValueError(
            f"model is a DataParallel over {len(model.device_ids)} devices, whose threads would "
            "each route a part of the batch: start one process for each with torchrun and pass a "
            "DistributedDataParallel, or let the program see one device (CUDA_VISIBLE_DEVICES=0)"
        )
    network = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(network, nn.Module)
    for name, root in (("model", network), ("criterion", criterion)):
        if root is None:
            continue
        check_wrappers(name, root)
        if any(isinstance(m, DistributedDataParallel) for m in root.modules()):
            raise ValueError(
                f"{name} holds a DistributedDataParallel: wrap the whole network once, outermost, "
                "as in DistributedDataParallel(torch.compile(network)), and pass a criterion as it "
                "is; its gradients are averaged with the network's"
            )
    if isinstance(model, DistributedDataParallel):
        if is_sharded(network):
            raise ValueError(
                "model is a DistributedDataParallel around fully_shard, and both average: leave "
                "the wrapper out, and give fully_shard a mesh (replicate, shard) for copies"
            )
        return network, Replicas(model, criterion, agreement, mean=mean)
    if is_sharded(network):
        return network, Sharded(network, criterion, agreement, mean=mean)
    return network, Alone(agreement)


class Replicas:
    """Hold one process's copy of a network and its criterion.

    DDP averages in every backward pass whose forward went through it, and expects that pass to
    reach every parameter. A step has several backward passes, each of which leaves some norms out:
    they run past the wrapper, and what they added up is averaged once.

    Args:
        wrapper: gives the process group, what is exchanged, and `no_sync`.
        criterion: see `unwrap`.
        agreement: of the method.
        mean: gradients are averaged over the processes; else they are summed, for losses that
            each process has divided by the rows of all.

    Raises:
        ValueError: the wrapper has settings that a step would pass over.
    """

    def __init__(
        self,
        wrapper: DistributedDataParallel,
        criterion: nn.Module | None,
        agreement: Agreement,
        *,
        mean: bool = True,
    ) -> None:
        _check(wrapper)
        members, everyone = dist.get_world_size(wrapper.process_group), dist.get_world_size()
        if members != everyone:
            raise ValueError(
                f"model: the process group of its DistributedDataParallel holds {members} of "
                f"{everyone} processes: expected all, which exchange rows, too"
            )
        # To the end of what the wrapper frees: the reducer, if it held the group last, would end it
        # without letting go of the GIL, for which gloo may wait with a tensor of the last exchange.
        wrapper.process_group = wrapper.__dict__.pop("process_group")
        self._wrapper, self._world, self._agreement = wrapper, members, agreement
        self._divisor = members if mean else 1
        self._roots = [("model", wrapper.module)]
        if criterion is not None:
            self._roots.append(("criterion", criterion))
            learned = [*criterion.parameters(), *criterion.buffers()]
            shapes = [(tuple(tensor.shape), tensor.dtype) for tensor in learned]
            with agreement.call(1):
                agreement.agree("the criterion's parameters", shapes)
            self._broadcast(learned)
        self._averaged = self._exchanged(nn.Module.named_parameters)

    @property
    def averages(self) -> bool:
        """Return whether a step averages gradients: not inside of the wrapper's ``no_sync()``."""
        return bool(self._wrapper.require_backward_grad_sync)

    collective = False

    def ready(self, *, step: bool) -> None:
        """Get ready for a call, of a whole step or of its passes alone: nothing to do."""

    def check_unchanged(self) -> None:
        """Refuse a network whose parameters are no longer those that the wrapper holds.

        Raises:
            ValueError: some were replaced.
        """
        now = self._exchanged(nn.Module.named_parameters)
        held = self._averaged
        new = [n for n in {**now, **held} if now.get(n) is not held.get(n)]
        if new:
            raise ValueError(
                f"{new[0]} was replaced since the model's DistributedDataParallel was made, which "
                "would not average its gradient: wrap the model and make the method again"
            )

    @contextlib.contextmanager
    def exchange(self, alike: dict[str, object]) -> Iterator[None]:
        """Exchange buffers before all passes of a step, and gradients after them.

        Inside the wrapper's own ``no_sync()`` nothing is exchanged.

        Args:
            alike: has to be the same in all processes.

        Raises:
            ValueError: something that a step would pass over was set up since, or another process
                refused its batch; nothing has changed.
            RuntimeError: the processes have gradients of different parameters.
        """
        _check(self._wrapper)
        # A forward through the wrapper whose backward never came left its hooks waiting for one.
        reset_reducer(self._wrapper)
        buffers: list[Tensor] = []
        if self._wrapper.broadcast_buffers and self.averages:
            buffers = list(self._exchanged(nn.Module.named_buffers).values())
        alike = alike | {"values in buffers": sum(map(Tensor.numel, buffers))}
        self._agreement.agree("a step", alike)
        if not self.averages:
            yield
            return
        self._broadcast(buffers)
        with self._wrapper.no_sync():  # the hooks of a compiled autograd ask for it
            yield
        self._check_alike()
        gradients = [p.grad for p in self._averaged.values() if p.grad is not None]
        in_one(gradients, self._average)

    def _exchanged(
        self, named: Callable[[nn.Module], Iterable[tuple[str, Tensor]]]
    ) -> dict[str, Tensor]:
        """Return tensors of network and criterion by name, without what the wrapper ignores."""
        return {
            f"{owner}.{name}": tensor
            for owner, root in self._roots
            for name, tensor in named(root)
            if owner == "criterion" or name not in self._wrapper.parameters_to_ignore
        }

    def _broadcast(self, tensors: Iterable[Tensor]) -> None:
        group = self._wrapper.process_group
        in_one(tensors, lambda flat: dist.broadcast(flat, group=group, group_src=0))

    def _average(self, flat: Tensor) -> None:
        if self._divisor != 1:
            flat.div_(self._divisor)  # first, as DDP does: a sum may be out of range
        dist.all_reduce(flat, group=self._wrapper.process_group)

    def _check_alike(self) -> None:
        """Check that all have gradients of the same parameters: else the sum is wrong, or hangs."""
        reached = bytes(parameter.grad is not None for parameter in self._averaged.values())
        try:
            self._agreement.agree(_GRADIENTS, reached)
        except Disagreement as error:
            if set(error.what) != {_GRADIENTS}:
                raise
            found = zip(self._averaged, zip(*error.of_ranks, strict=True), strict=True)
            apart = [name for name, of_ranks in found if len(set(of_ranks)) > 1]
            shown = ", ".join(apart[:3]) + (", ..." if len(apart) > 3 else "")
            raise RuntimeError(
                f"{len(apart)} parameters ({shown}) have a gradient in some processes and none "
                "in others: give all the same method, options and state, and a model whose "
                "forward reaches the same parameters everywhere"
            ) from None


def _check(wrapper: DistributedDataParallel) -> None:
    """Refuse settings that only the wrapper's own forward and backward heed.

    Raises:
        ValueError: names it and what to do instead.
    """
    for what, is_on in settings_of_passes(wrapper).items():
        if is_on:
            instead = _INSTEAD.get(what, "leave it out")
            raise ValueError(
                f"model: its DistributedDataParallel has {what}, which belongs to forwards through "
                f"the wrapper; a step runs the network inside and averages once: {instead}"
            )

"""Keep the copies of a network in several processes alike: one exchange before, one after."""

import contextlib
import zlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from entprop_fast.layers.synchronised import is_synchronised
from entprop_fast.parallel.agreement import Agreement, Disagreement
from entprop_fast.parallel.buckets import Buckets, Plan, plan
from entprop_fast.parallel.flat import in_one
from entprop_fast.parallel.overlap import LastPass
from entprop_fast.parallel.summed import Summed
from entprop_fast.torch_internals import reset_reducer, settings_of_passes

_GRADIENTS = "the mean of the gradients"
# Whether gradients leave while the last backward pass runs, by backend: docs/distributed.md has
# what was measured over gloo; NCCL has not run, and its exchange takes no time of the host.
OVERLAPS = {"gloo": False, "nccl": True}
_INSTEAD = {
    "mixed_precision": "leave it out and use amp='bf16'",
    "join()": "give every process as many batches",
}


class Replicas:
    """One process's copy of a network and its criterion.

    DDP averages in every backward pass whose forward went through it, and expects that pass to
    reach every parameter. A step has several backward passes, each of which leaves some norms out:
    they run past the wrapper, and what they added up is averaged once, bucket after bucket.
    With `overlap` buckets leave while the last backward pass runs. Where it has to talk to the
    other processes itself, for synchronised norms, or gradients are divided after the passes, they
    leave after it, as they do without.

    Args:
        wrapper: gives the process group, what is exchanged, and `no_sync`.
        criterion: see `unwrap`.
        agreement: of the method.
        mean: gradients are averaged over the processes; else they are summed, for losses that
            each process has divided by the rows of all; one that has reached a parameter by none
            of its rows adds 0. Nothing overlaps then.
        overlap: see above; None for what `OVERLAPS` says of the backend.

    Raises:
        ValueError: the wrapper has settings that a step would pass over.

    Attributes:
        several: whether there are several processes, so that something is exchanged.
        mean: gradients are averaged, not summed.
    """

    def __init__(
        self,
        wrapper: DistributedDataParallel,
        criterion: nn.Module | None,
        agreement: Agreement,
        *,
        mean: bool = True,
        overlap: bool | None = None,
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
        self.mean, self._divisor = mean, members if mean else 1
        self._roots = [("model", wrapper.module)]
        if criterion is not None:
            self._roots.append(("criterion", criterion))
            learned = [*criterion.parameters(), *criterion.buffers()]
            shapes = [(tuple(tensor.shape), tensor.dtype) for tensor in learned]
            with agreement.call(1):
                agreement.agree("the criterion's parameters", shapes)
            self._broadcast(learned)
        self._averaged = self._exchanged(nn.Module.named_parameters)
        self._learned = list(self._averaged.values())
        self.several = members > 1
        self._group, backend = wrapper.process_group, _backend(wrapper)
        self._overlap = mean and (OVERLAPS.get(backend, False) if overlap is None else overlap)
        if self._overlap and backend == "gloo" and self.several:
            # Its collectives are matched by their order, agreements among them, and how many
            # buckets are under way when a process agrees is its own affair.
            self._group = dist.new_group(backend="gloo")
        self._plan: Plan = ()  # of what all had gradients of in the last step
        self._last_pass = LastPass(self._learned)
        self._summed = Summed()
        self._buckets: Buckets | None = None  # of the step that is under way

    @property
    def averages(self) -> bool:
        """Return whether a step averages gradients: not inside of the wrapper's ``no_sync()``."""
        return self.several and bool(self._wrapper.require_backward_grad_sync)

    collective = False

    def ready(self, *, step: bool) -> None:
        """Get ready for a call, of a whole step or of its passes alone."""
        if step:
            self._summed.forget()

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
        if self._overlap:
            alike["buckets of gradients"] = zlib.crc32(repr(self._plan).encode())
        self._agreement.agree("a step", alike)
        if not self.averages:
            with self._summed.once():
                yield
            return
        self._broadcast(buffers)
        planned = self._plan if self._overlap else ()
        buckets = self._buckets = Buckets(self._learned, planned, self._group, self._divisor)
        try:
            with self._summed.once():
                with self._wrapper.no_sync():  # the hooks of a compiled autograd ask for it
                    yield
                reached = self._agree_on_reached()
        except Exception as error:
            self._give_up(buckets, error)
            raise
        finally:
            self._buckets = None
        buckets.finish()
        now = plan(self._learned, reached)
        if now != planned:
            known = {position for bucket in planned for position in bucket}
            new = plan(self._learned, [one for one in reached if one not in known])
            Buckets(self._learned, new, self._group, self._divisor).finish()
        self._plan = now
        if not self.mean:
            self._summed.remember(self._learned)

    def last_pass(self) -> contextlib.AbstractContextManager[None]:
        """Surround the last backward pass of a step, which nothing but the processes' own follows.

        Buckets of gradients leave while it runs, where that is asked for and can be.
        """
        buckets = self._buckets
        if buckets is None or not self._overlap or self._synchronises():
            return contextlib.nullcontext()
        return self._last_pass.watch(buckets if self._plan else None)

    def _synchronises(self) -> bool:
        """Return whether norms talk to other processes in a backward pass, in their own order."""
        return any(is_synchronised(root) for _, root in self._roots)

    def _give_up(self, buckets: Buckets, error: Exception) -> None:
        """Keep the processes in step where a step ends in an error in one of them or in all.

        Those that had no error have launched some buckets, and will launch the others.
        """
        if self._agreement.lost:
            return
        try:
            buckets.abandon()
            if self._agreement.told:
                buckets.wait()
        except Exception as lost:
            self._agreement.lost = True
            error.add_note(f"Its gradients could not be taken back from the others: {lost}")

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

    def _agree_on_reached(self) -> list[int]:
        """Return which parameters have gradients, by position: the same ones in all processes."""
        reached = bytes(parameter.grad is not None for parameter in self._learned)
        try:
            self._agreement.agree(_GRADIENTS, reached)
        except Disagreement as error:
            if set(error.what) != {_GRADIENTS}:
                raise
            of_parameters = list(zip(*error.of_ranks, strict=True))
            if not self.mean:
                return self._fill(map(any, of_parameters))
            found = zip(self._averaged, of_parameters, strict=True)
            apart = [name for name, of_ranks in found if len(set(of_ranks)) > 1]
            shown = ", ".join(apart[:3]) + (", ..." if len(apart) > 3 else "")
            raise RuntimeError(
                f"{len(apart)} parameters ({shown}) have a gradient in some processes and none "
                "in others: give all the same method, options and state, and a model whose "
                "forward reaches the same parameters everywhere"
            ) from None
        return [position for position, is_reached in enumerate(reached) if is_reached]

    def _fill(self, reached: Iterable[bool]) -> list[int]:
        """Give a gradient of 0 to parameters that other processes alone have reached."""
        positions = [position for position, is_reached in enumerate(reached) if is_reached]
        for parameter in map(self._learned.__getitem__, positions):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return positions


def _backend(wrapper: DistributedDataParallel) -> str:
    """Return the backend of a wrapper's group for the device of its parameters."""
    config = dict(
        pair.split(":") for pair in dist.get_backend_config(wrapper.process_group).split(",")
    )
    device = next((p.device.type for p in wrapper.parameters()), "cpu")
    return config.get(device, "")


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

"""Stand for the exchange between processes where a network is in one alone."""

import contextlib
from collections.abc import Iterator

from entprop_fast.parallel.agreement import Agreement


class Alone:
    """A network that this process alone keeps.

    Attributes:
        averages: whether a step averages its gradients over the processes.
        several: whether it may.
        collective: whether a pass itself exchanges tensors with the other processes.
        mean: gradients are averaged, not summed.
    """

    averages = several = collective = False
    mean = True

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement

    @contextlib.contextmanager
    def exchange(self, alike: dict[str, object]) -> Iterator[None]:
        """Surround all passes of a step, for which `alike` has to be the same in all processes."""
        self._agreement.agree("a step", alike)
        yield

    def last_pass(self) -> contextlib.AbstractContextManager[None]:
        """Surround the last backward pass of a step."""
        return contextlib.nullcontext()

    def ready(self, *, step: bool) -> None:
        """Get ready for a call, of a whole step or of its passes alone: nothing to do."""

    def check_unchanged(self) -> None:
        """Accept a network whose modules are others than before."""

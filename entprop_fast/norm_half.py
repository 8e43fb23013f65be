"""Define the struct that the public op, its checks, the reference and the launchers share."""

from typing import NamedTuple

from torch import Tensor


class Half(NamedTuple):
    """Hold what `F.batch_norm` takes for one half of a dual batch norm.

    Args:
        weight: [C], or None for ones.
        bias: [C], or None for zeros.
        running_mean: [C] or None; moved in place in training, used as it is otherwise.
        running_var: [C] or None; likewise, by the unbiased variance.
        training: normalise by the statistics of the half's rows (True) or by the running ones.
        momentum: of the running statistics.
        eps: added to the variance.
        num_batches: int64 [] or None; counts the batches that have moved the running statistics:
            one more where the half trains and has rows.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    training: bool = True
    momentum: float = 0.1
    eps: float = 1e-5
    num_batches: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Return weight, bias, running_mean and running_var."""
        return self.weight, self.bias, self.running_mean, self.running_var


PLAIN = Half()  # no parameters, nothing tracked


class Normed(NamedTuple):
    """Hold a norm's output, once for each of its readers, and what was normalised.

    Args:
        y: shaped like the input.
        again: `y` for a second reader, whose gradient the norm's backward adds up as it reads; the
            same memory, which neither may change in place. `y` itself where nobody asked for it.
        total: what was normalised: the input plus its addend, or the input.
    """

    y: Tensor
    again: Tensor
    total: Tensor

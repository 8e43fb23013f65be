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
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    running_mean: Tensor | None = None
    running_var: Tensor | None = None
    training: bool = True
    momentum: float = 0.1
    eps: float = 1e-5

    @property
    def tensors(self) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Return weight, bias, running_mean and running_var."""
        return self.weight, self.bias, self.running_mean, self.running_var


PLAIN = Half()  # no parameters, nothing tracked

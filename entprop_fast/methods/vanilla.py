"""Plain training: one pass, one norm; what methods that mix the whole batch are made from."""

from torch import Tensor

from entprop_fast.methods.base import Method, StepResult
from entprop_fast.methods.targets import Targets


class Vanilla(Method):
    """Plain training: the loss of the images as they are (cost 1).

    On a model with dual norms the auxiliary halves take no part. Arguments are those of `Method`.
    """

    name = "vanilla"

    def cost(self, batch: int) -> float:
        """One pass, whatever the batch."""
        return 1.0

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        return images.detach(), Targets.unmixed(labels)

    def _passes(self, images: Tensor, labels: Tensor) -> StepResult:
        mixed, targets = self._mixed(images, labels)
        logits = self._forward(mixed, labels, own=targets.lam is not None)
        return self._learn_alone(logits, targets)

"""Train plainly: one pass, one norm."""

from torch import Tensor

from entprop_fast.methods.base import Method
from entprop_fast.methods.network import Network
from entprop_fast.methods.passes import StepResult, only_pass
from entprop_fast.methods.targets import Targets


class Vanilla(Method):
    """Train plainly: the loss of the images as they are (cost 1).

    On a model with dual norms the auxiliary halves take no part.
    """

    name = "vanilla"

    def cost(self, batch: int) -> float:
        """Return 1: one pass, whatever the batch."""
        return 1.0

    def _passes(self, net: Network, images: Tensor, labels: Tensor) -> StepResult:
        return only_pass(net, images.detach(), Targets.unmixed(labels, net.dealt))

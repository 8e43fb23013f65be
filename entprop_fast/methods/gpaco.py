"""Offer GPaCo's loss (Cui et al., *Generalized Parametric Contrastive Learning*, 2022)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entprop_fast.options import create, option


@dataclass(frozen=True, kw_only=True)
class GPaCoOptions:
    """Hold the options of `GPaCo`."""

    num_classes: int = option(help="Classes, the width of the logits.", low=1)
    alpha: float = option(0.05, "Weight of a positive row; the centre's is 1.", low=0)
    temperature: float = option(0.2, "Of the similarities between rows.", low=0, open_low=True)


class GPaCo(nn.Module):
    """Compare each row with a learnable centre of every class, and with the other rows of its pass.

    With logits z, centres c, ``s_ik = z_i . c_k`` and ``t_ij = cos(z_i, z_j) / temperature``, row i
    of label y with the positives ``P = {j != i of label y}`` has the loss (13)

    ``-(s_iy - Z_i + alpha * sum_{j in P} (t_ij - Z_i)) / (1 + alpha * |P|)``, where
    ``Z_i = log(sum_k exp s_ik + sum_{j != i} exp t_ij)``.

    The published code contrasts features behind a projection head, in two views of each image; a
    criterion is given logits alone, of one view, so the logits are the features here, and a centre
    is a direction among them. Centres start as the unit vectors: ``s`` is then the logits, and the
    network's largest logit, by which it is evaluated, is its nearest centre.

    Args:
        num_classes: classes, the width of the logits.
        alpha: weight of a positive row; the centre's is 1.
        temperature: of the similarities between rows.

    Raises:
        TypeError, ValueError: an option outside its range.

    Attributes:
        centres: the learnable class centres, [classes, classes]; the optimizer must hold them.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float = GPaCoOptions.alpha,
        temperature: float = GPaCoOptions.temperature,
    ) -> None:
        super().__init__()
        given = {"num_classes": num_classes, "alpha": alpha, "temperature": temperature}
        checked = create(GPaCoOptions, given)
        self.alpha, self.temperature = checked.alpha, checked.temperature
        self.centres = nn.Parameter(torch.eye(checked.num_classes))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return a loss for each row, which depends on the others too: [B, classes], [B] -> [B].

        Raises:
            ValueError: logits of another width than the centres.
        """
        rows, classes = logits.shape
        if classes != len(self.centres):
            raise ValueError(
                f"logits of {classes} classes: GPaCo has centres for {len(self.centres)}; make it "
                "with num_classes of the model"
            )
        to_centres = logits @ self.centres.to(logits.dtype).T
        features = F.normalize(logits, dim=1)
        to_rows = features @ features.T / self.temperature
        itself = torch.eye(rows, dtype=torch.bool, device=logits.device)
        to_rows = to_rows.masked_fill(itself, -torch.inf)
        log_p = torch.cat((to_centres, to_rows), dim=1).log_softmax(dim=1)
        of_centre = log_p[:, :classes].gather(1, labels[:, None])[:, 0]
        positive = (labels[:, None] == labels) & ~itself
        # Not a product with the mask: a row is infinitely far from itself.
        of_rows = torch.where(positive, log_p[:, classes:], 0).sum(dim=1)
        # In the logits' dtype: a count times a float would be float32.
        weights = 1 + self.alpha * positive.sum(dim=1, dtype=log_p.dtype)
        return -(of_centre + self.alpha * of_rows) / weights

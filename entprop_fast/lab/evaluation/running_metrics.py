"""Count right answers by image, and calibration, while logits pass by."""

from __future__ import annotations

import torch
from torch import Tensor

from entprop_fast.devices import widest_float
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.suites import Suite
from entprop_fast.lab.evaluation.metrics import NaNLogits, broken_rows

BINS = 15  # of confidence, equally wide

_UNIT = 2.0**-40  # of confidences: sums of integers are the same in any order
_WRONG, _RIGHT = 1, 2  # answers; 0 where there is none yet

State = dict[str, Tensor]


class RunningMetrics:
    """Count right answers and confidences on one set of images; the host waits only when asked.

    Args:
        images: how many.
        device: of the logits.
        classes: compare these classes alone, int64 (a subset of the network's); None: all.
    """

    def __init__(self, images: int, device: torch.device, classes: Tensor | None = None) -> None:
        self.classes = classes
        self._answers = torch.zeros(images, dtype=torch.int8, device=device)
        self._seen = 0
        self._broken = torch.zeros((), dtype=torch.int64, device=device)
        # Images, confidences and right answers of each bin
        self._bins = torch.zeros(3, BINS, dtype=torch.int64, device=device)

    def add(self, first: int, logits: Tensor, labels: Tensor) -> None:
        """Count images ``first ...``: logits ``[B, classes]``, labels int64 ``[B]``."""
        broken = broken_rows(logits).sum()
        if self.classes is not None:
            mask = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
            mask[self.classes] = False
            logits = logits.masked_fill(mask, -torch.inf)
        right = logits.argmax(dim=1) == labels
        confidence = logits.to(widest_float(logits.device)).softmax(dim=1).amax(dim=1)
        place = (confidence * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
        units = (confidence / _UNIT).round().long()
        counts = torch.stack((torch.ones_like(units), units, right.long()))
        self._answers[first : first + len(labels)] = torch.where(right, _RIGHT, _WRONG)
        self._bins.index_add_(1, place, counts)
        self._broken += broken
        self._seen += len(labels)

    def check(self, what: str) -> None:
        """Refuse to give numbers on answers that are none; ``what`` the images are."""
        if broken := int(self._broken):
            raise NaNLogits(broken, self._seen, what)

    def state_dict(self) -> State:
        """Return what was counted, on the CPU: integers, of other images to be added to."""
        state = {"answers": self._answers, "broken": self._broken, "bins": self._bins}
        return {name: counts.cpu() for name, counts in state.items()}

    def load_state_dict(self, state: State) -> None:
        """Go on from a `state_dict` of as many images."""
        self._answers.copy_(state["answers"])
        self._bins.copy_(state["bins"])
        self._broken.copy_(state["broken"])
        self._seen = int(state["answers"].count_nonzero())

    @property
    def right(self) -> Tensor:
        """Return which images were answered right, bool ``[N]``."""
        return self._answers == _RIGHT

    @property
    def total(self) -> int:
        """Return how many images were counted."""
        return self._seen

    @property
    def correct(self) -> int:
        """Return how many of them were right."""
        return int(self.right.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error: ``sum over bins of n_b / n |accuracy_b - confidence_b|``.

        Naeini et al. (AAAI 2015), with 15 equally wide bins as in Guo et al. (ICML 2017).
        """
        _, confidence, right = self._bins.tolist()
        apart = (abs(c * _UNIT - r) for c, r in zip(confidence, right, strict=True))
        return float(sum(apart)) / max(self._seen, 1)


class CorruptionMetrics:
    """Keep the metrics of every kind and severity of a suite."""

    def __init__(self, suite: Suite, device: torch.device) -> None:
        self.suite = suite
        self.of_kind = {
            kind: [RunningMetrics(suite.images, device) for _ in SEVERITIES]
            for kind in (*suite.kinds, *suite.extra)
        }

    def named(self) -> dict[str, RunningMetrics]:
        """Return all of them by kind and severity."""
        return {
            f"{kind} {severity}": metrics
            for kind, each in self.of_kind.items()
            for severity, metrics in zip(SEVERITIES, each, strict=True)
        }

    def shares(self) -> dict[str, list[float]]:
        """Return the accuracies of each kind, fractions by severity."""
        for kind, each in self.of_kind.items():
            for severity, metrics in enumerate(each, start=1):
                metrics.check(f"images of {kind}, severity {severity}")
        return {kind: [one.correct / one.total for one in e] for kind, e in self.of_kind.items()}

    def by_image(self) -> Tensor:
        """Return the share of each image's versions that are right, float64 on the CPU.

        The extra kinds are not among them.
        """
        right = [one.right for kind in self.suite.kinds for one in self.of_kind[kind]]
        return torch.stack(right).cpu().double().mean(dim=0)

    @property
    def ece(self) -> float:
        """Mean calibration error over kinds and severities, without the extra kinds."""
        errors = [one.ece for kind in self.suite.kinds for one in self.of_kind[kind]]
        return sum(errors) / len(errors)

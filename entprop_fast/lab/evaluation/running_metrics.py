"""Count right answers by image, and calibration, while logits pass by."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from entprop_fast.devices import widest_float
from entprop_fast.lab.corruptions import SEVERITIES
from entprop_fast.lab.corruptions.suites import Suite
from entprop_fast.lab.evaluation.metrics import NaNLogits, broken_rows

BINS = 15  # of confidence, equally wide


class RunningMetrics:
    """Count right answers and confidences on one set of images; the host waits only when asked.

    Args:
        images: how many.
        device: of the logits.
        classes: compare these classes alone, int64 (a subset of the network's); None: all.
    """

    def __init__(self, images: int, device: torch.device, classes: Tensor | None = None) -> None:
        self.right = torch.zeros(images, dtype=torch.bool, device=device)
        self.classes = classes
        self._seen = 0
        self._broken = torch.zeros((), dtype=torch.int64, device=device)
        self._bins = torch.zeros(3, BINS, dtype=widest_float(device), device=device)

    def add(self, first: int, logits: Tensor, labels: Tensor) -> None:
        """Count images ``first ...``: logits ``[B, classes]``, labels int64 ``[B]``."""
        self._broken += broken_rows(logits).sum()
        if self.classes is not None:
            mask = torch.ones(logits.shape[1], dtype=torch.bool, device=logits.device)
            mask[self.classes] = False
            logits = logits.masked_fill(mask, -torch.inf)
        right = logits.argmax(dim=1) == labels
        self.right[first : first + len(labels)] = right
        self._seen += len(labels)
        confidence = logits.to(self._bins.dtype).softmax(dim=1).amax(dim=1)
        place = (confidence * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
        ones = torch.ones_like(confidence)
        self._bins.index_add_(1, place, torch.stack((ones, confidence, right.to(ones.dtype))))

    def check(self, what: str) -> None:
        """Refuse to give numbers on answers that are none; ``what`` the images are."""
        if broken := int(self._broken):
            raise NaNLogits(broken, self._seen, what)

    def state_dict(self) -> dict[str, Any]:
        """Return what was counted, on the CPU."""
        return {
            "right": self.right.cpu(),
            "seen": self._seen,
            "broken": self._broken.cpu(),
            "bins": self._bins.cpu(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of as many images."""
        self.right.copy_(state["right"])
        self._bins.copy_(state["bins"])
        self._broken.copy_(state["broken"])
        self._seen = state["seen"]

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
        _, confidence, right = self._bins
        return float((confidence - right).abs().sum()) / max(self._seen, 1)


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

"""Make the rows of the augmentations, and their table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench import rows
from bench.augment.cases import CASES, SIZES, Case, Size
from bench.rows import Row
from bench.timing import verdict
from entprop_fast.lab.report.text import markdown_table

NAME = "augment_cpu"
PART = "augment"  # of the page
KEY = ("side", "augmentation", "peer")  # of a row
PEERS = {
    "torchvision": "torchvision v2, tensors",
    "pillow": "Pillow",
    "authors": "its authors' code",
}
HEAD = ["augmentation", "pixels", "ours", *PEERS.values()]
HEAD += [f"times {name}" for name in PEERS.values()] + ["target", ""]


@dataclass(frozen=True)
class Measured:
    """Hold the CPU seconds that an image takes, `ours` and the peers'."""

    size: Size
    case: Case
    seconds: dict[str, float]

    def ratio(self, peer: str) -> float:
        """Return how many times faster ours is."""
        return self.seconds[peer] / self.seconds["ours"]


MEASURED: list[Measured] = []


def is_whole() -> bool:
    """Return whether every case was measured; a part replaces no committed row."""
    return len(MEASURED) == len(CASES)


def rows_of(measured: list[Measured]) -> list[Row]:
    """Make a row for each augmentation, size and peer; for one without peers a row alone."""
    found = []
    for one in measured:
        peers: list[str | None] = [name for name in PEERS if name in one.seconds]
        for peer in peers or [None]:
            ratio = None if peer is None else one.ratio(peer)
            found.append(
                {
                    "side": one.size.side,
                    "augmentation": one.case.name,
                    "peer": peer,
                    "images_a_second": 1 / one.seconds["ours"],
                    "images_a_second_of_peer": None if peer is None else 1 / one.seconds[peer],
                    "batch": one.size.ours,
                    "ratio": ratio,
                    "target": None if ratio is None else one.size.target,
                    "verdict": "" if ratio is None else verdict(ratio, one.size.target),
                }
            )
    return found


def table_of(found: list[Row]) -> str:
    """Write the table in Markdown: images a second, and ratios."""
    lines = [HEAD]
    shown = dict.fromkeys((row["side"], row["augmentation"]) for row in found)
    for side, name in sorted(shown, key=lambda one: one[0]):
        own = [row for row in found if (row["side"], row["augmentation"]) == (side, name)]
        of_peer = {row["peer"]: row for row in own if row["peer"] is not None}
        verdicts = {row["verdict"] for row in of_peer.values()}
        worst = next((v for v in ("slower", "missed", "reached") if v in verdicts), "")
        rates, ratios = ["–"] * len(PEERS), ["–"] * len(PEERS)
        for place, peer in enumerate(PEERS):
            if peer in of_peer:
                rates[place] = f"{of_peer[peer]['images_a_second_of_peer']:,.0f}"
                ratios[place] = f"**{of_peer[peer]['ratio']:.1f}**"
        target = f"{own[0]['target']:g}" if of_peer else ""
        ours = f"{own[0]['images_a_second']:,.0f}"
        lines.append([name, str(side), ours, *rates, *ratios, target, worst])
    return markdown_table(lines, escaped=True)


def section(page: Path) -> str:
    """Write the table of the committed rows, and how it was measured."""
    found = rows.read(NAME)
    sizes = "; ".join(
        f"at {size.side} pixels batches of {size.ours}, and {size.theirs} images of the others"
        for size in SIZES
    )
    missed = [
        f"{row['augmentation']} at {row['side']} against {row['peer']}"
        for row in found
        if row["verdict"] in ("missed", "slower")
    ]
    return table_of(found) + (
        "\n\nImages a second of one core, uint8 to uint8, draws included; medians of CPU time, "
        f"interleaved in one process: {sizes}. The others take image by image: torchvision v2's "
        "`AugMix`, `TrivialAugmentWide` and `RandAugment` on tensors; under Pillow the operations "
        "and mixture of google-research/augmix (bench/augment/pillow_chains.py), and torchvision's "
        "other two on Pillow images. PRIME's authors run whole batches (bench/augment/"
        "prime_batches.py), PixMix's image by image, with our fractals, resized in "
        "memory (bench/augment/pillow_pixmix.py). All have their own default settings. "
        f"Targets missed: {', '.join(missed) or 'none'}. "
        f"Made by `pytest bench/augment` ({rows.origins(found)})."
    )

"""Hold what vendors say of their cards, and bound the time of a step by it."""

from __future__ import annotations

from dataclasses import dataclass

from bench.roofline.counting import Counts
from bench.roofline.op import Op

LAUNCH = 2e-6  # seconds of the device between two launches that no graph holds: an assumption
HALVES = ("bfloat16", "float16")


@dataclass(frozen=True)
class Card:
    """Hold a card's figures, as its vendor gives them.

    Attributes:
        name: as `--card` takes it; a part of what the driver calls the card.
        tflops: of dense bfloat16 products with float32 sums, in 1e12 FLOP a second.
        tbs: of its memory, in 1e12 bytes a second.
        multiprocessors: of the card, not of its whole die.
        l2: of its second cache, in 1e6 bytes.
        sources: addresses of these.
    """

    name: str
    tflops: float
    tbs: float
    multiprocessors: int
    l2: int
    sources: tuple[str, ...]


CARDS = {
    card.name: card
    for card in (
        # The data sheet's 1979 TFLOP/s are with sparsity.
        Card(
            *("H100", 989.4, 3.35, 132, 50),
            (
                "https://www.nvidia.com/en-us/data-center/h100/",
                "https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper",
            ),
        ),
        Card(
            *("H200", 989.4, 4.8, 132, 50),
            (
                "https://www.nvidia.com/en-us/data-center/h200/",
                "https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper",
            ),
        ),
        Card(
            *("A100", 312.0, 2.039, 108, 40),
            (
                "https://www.nvidia.com/en-us/data-center/a100/",
                "https://images.nvidia.com/aem-dam/en-zz/Solutions/data-center/"
                "nvidia-ampere-architecture-whitepaper.pdf",
            ),
        ),
        Card(
            *("RTX 4090", 165.2, 1.008, 128, 72),
            (
                "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/"
                "nvidia-ada-gpu-architecture.pdf",
            ),
        ),
    )
}


def seconds(op: Op, card: Card) -> float:
    """Return the least time that an op takes: of its FLOP or of its bytes.

    Raises:
        ValueError: it multiplies in a dtype of which the table has no peak.
    """
    if op.flop and op.dtype not in HALVES:
        raise ValueError(f"{op.name} multiplies {op.dtype}: the cards' peaks are of bfloat16")
    return max(op.flop / (card.tflops * 1e12), op.bytes / (card.tbs * 1e12))


def bound(counts: Counts, card: Card) -> float:
    """Return the sum of all ops' least times, one after the other."""
    return sum(n * seconds(op, card) for op, n in counts.ops.items())


def small_share(counts: Counts, card: Card) -> float:
    """Return which share of the bytes is of ops that fit into the card's second cache."""
    small = sum(n * op.bytes for op, n in counts.ops.items() if op.bytes <= card.l2 * 1e6)
    return small / counts.bytes

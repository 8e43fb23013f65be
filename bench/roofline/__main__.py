"""Count the steps' FLOP, bytes and launches and print their bounds: `python -m bench.roofline`."""

from collections.abc import Sequence

import torch

from bench import rows
from bench.command import parser_of
from bench.fake_cuda.device import library
from bench.roofline.cards import CARDS
from bench.roofline.rows import ARCHS, NAME, SIZES, counted_rows
from bench.roofline.table import DEFAULT_CARD, section_of
from csrc.toolchain import Unavailable


def main(arguments: Sequence[str] | None = None) -> None:
    """Count the networks named on the command line; all of them become the committed rows."""
    parser = parser_of("bench.roofline", __doc__, "ARCH", ARCHS)
    parser.add_argument("--card", choices=list(CARDS), default=DEFAULT_CARD.name)
    given = parser.parse_args(arguments)
    try:
        path = library()
    except Unavailable as missing:
        raise SystemExit(f"bench/fake_cuda/no_cuda.cpp cannot be compiled: {missing}") from missing
    if path is None and not torch.cuda.is_available():
        raise SystemExit("no CUDA device, and this torch is built for one; a CPU build needs none")
    sizes = [size for size in SIZES if size.arch in given.names]
    counted = counted_rows(sizes, str(path or ""))
    print(section_of([row | rows.stamp() for row in counted], CARDS[given.card], aligned=True))
    if len(sizes) == len(SIZES):
        print(f"\nrows: {rows.write(NAME, counted)}")


if __name__ == "__main__":
    main()

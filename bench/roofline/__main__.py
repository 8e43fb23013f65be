"""Count the steps' FLOP, bytes and launches and print their bounds: `python -m bench.roofline`."""

import argparse

import torch

from bench import rows
from bench.roofline.cards import CARDS
from bench.roofline.rows import NAME, SIZES, counted_rows
from bench.roofline.table import DEFAULT_CARD, section_of
from csrc.toolchain import Unavailable
from tests.fake_cuda.device import library


def main() -> None:
    """Count the networks named on the command line; all of them become the committed rows."""
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description=__doc__)
    known = [size.arch for size in SIZES]
    parser.add_argument("arch", nargs="*", help=f"of {', '.join(known)}; all without")
    parser.add_argument("--card", choices=list(CARDS), default=DEFAULT_CARD.name)
    given = parser.parse_args()
    if unknown := [arch for arch in given.arch if arch not in known]:
        parser.error(f"arch: {', '.join(unknown)} is none of {', '.join(known)}")
    try:
        path = library()
    except Unavailable as missing:
        raise SystemExit(f"tests/fake_cuda/no_cuda.cpp cannot be compiled: {missing}") from missing
    if path is None and not torch.cuda.is_available():
        raise SystemExit("no CUDA device, and this torch is built for one; a CPU build needs none")
    sizes = [size for size in SIZES if size.arch in (given.arch or known)]
    counted = counted_rows(sizes, str(path or ""))
    print(section_of([row | rows.stamp() for row in counted], CARDS[given.card], aligned=True))
    if len(sizes) == len(SIZES):
        print(f"\nrows: {rows.write(NAME, counted)}")


if __name__ == "__main__":
    main()

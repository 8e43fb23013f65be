"""Time the captured step at many sizes of batch: `python -m bench.step.batches [ARCH ...]`.

A graph saves the host's time, so small batches gain the most, and from some size on none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from bench import rows
from bench.command import keep_as_measured, parser_of
from bench.step import contenders as c
from bench.step.cases import ON_CUDA, settings
from bench.step.contenders import Setting
from bench.step.targets import least
from bench.step.turns import Crew, take_turns
from bench.timing import require_cuda
from entprop_fast.lab.report.text import markdown_table

NAME = "batches_cuda"
BATCHES = (32, 64, 128, 256, 512, 1024)
ARCHITECTURES = ("resnet18", "wrn28_10")
# 1024 images of WRN-28-10 are 13 GB for each of them.
WHO = (*c.CAPTURED_VANILLA, c.VANILLA_CHANNELS_LAST, c.OURS, c.CAPTURED)
ROUNDS = 7
HEAD = [
    *("network", "images a step", "captured, ms", "of vanilla captured, better layout"),
    *("of vanilla eager (channels_last)", "of ours, not captured", "images/s", "peak MiB"),
]
BASES = (c.CAPTURED_VANILLA, (c.VANILLA_CHANNELS_LAST,), (c.OURS,))


def cases(arch: str, device: str = "cuda") -> list[Setting]:
    """Return EntProp(0.2, 1) of a network with every size of batch."""
    usual = next(setting for setting in settings("cuda") if setting.arch == arch)
    return [replace(usual, batch=batch, device=device) for batch in BATCHES]


def section(page: Path) -> str:
    """Write a line for each network and size of batch."""
    found = rows.comparable(rows.read(NAME))
    lines = [HEAD]
    by_case: dict[tuple[str, int], dict[str, rows.Row]] = {}
    for row in found:
        by_case.setdefault((row["arch"], row["batch"]), {})[row["contender"]] = row
    for (arch, batch), here in by_case.items():
        captured = here[c.CAPTURED]
        if captured["seconds"] is None:
            cells = [arch, str(batch), f"no time: {captured['refused']}", *[""] * 5]
        else:
            seconds = captured["seconds"]
            bases = [least(names, here, "seconds") for names in BASES]
            cells = [
                arch,
                str(batch),
                f"{1e3 * seconds:.1f}",
                *("" if b is None else f"{seconds / here[b]['seconds']:.2f}" for b in bases),
                f"{batch / seconds:.0f}",
                f"{captured['peak_memory'] / 2**20:.0f}",
            ]
        lines.append(cells)
    return markdown_table(lines) + (
        f"\n\nEntProp(0.2, 1), bfloat16 autocast; medians of {ROUNDS} turns, ratios of medians; "
        "below 1 the captured step takes less time. Made by `python -m bench.step.batches` "
        f"({rows.origin(found[0])})."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the networks named, both by default; rows are written as they come."""
    parser = parser_of("bench.step.batches", __doc__, "ARCH", ON_CUDA, ARCHITECTURES)
    architectures = parser.parse_args(arguments).names
    require_cuda()
    keep_as_measured(NAME, _measured(architectures))


def _measured(architectures: Sequence[str]) -> Iterator[tuple[list[rows.Row], str]]:
    contenders = [one for one in c.CONTENDERS if one.name in WHO]
    crew = Crew()
    try:
        for setting in (setting for arch in architectures for setting in cases(arch)):
            workers = crew.of(contenders, "cuda")
            found = take_turns(setting, contenders, workers, ROUNDS, at_once=False)
            told = (
                f"{row.contender} {1e3 * row.seconds:.1f} ms"
                if row.seconds
                else f"{row.contender}: {row.refused}"
                for row in found
            )
            yield [row.as_json() for row in found], "; ".join((str(setting), *told))
    finally:
        crew.dismiss()


if __name__ == "__main__":
    main()

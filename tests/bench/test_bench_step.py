"""bench/step without timing anything: what it selects, and what its tables and sentences say."""

from pathlib import Path

import pytest

from bench import rows
from bench.step import cases, table
from bench.step import contenders as c
from bench.step.results import TARGETS, Row, Verdict, paper_cost, verdicts
from tests.bench.conftest import WHERE

PAGE = Path("docs/x.md")
SECONDS = {
    c.VANILLA: 1.0,
    c.VANILLA_CHANNELS_LAST: 0.8,
    c.REFERENCE: 1.4,
    c.NAIVE: 1.6,
    c.COMPILED: 1.1,
    c.OURS_VANILLA: 0.7,
    c.OURS: 0.85,
}


def measured(device: str = "cpu", **changed: float | None) -> list[rows.Row]:
    """Every setting of a device with the seconds above, as committed rows have them."""
    found = []
    seconds = SECONDS | changed
    for setting in cases.settings(device):
        for contender in cases.contenders(setting):
            row = Row(setting, contender.name, peak_memory=100 << 20)
            row.seconds = seconds.get(contender.name, 2.0)
            if row.seconds is None:
                row.refused = "its losses differ"
            else:
                row.quartiles = (row.seconds - 0.01, row.seconds + 0.01)
                row.costs = {unit: row.seconds / SECONDS[unit] for unit in table.UNITS}
            row.launches = 7 if device == "cuda" else None
            found.append(row.as_json() | WHERE)
    return found


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_target_is_of_a_setting_and_a_contender_that_are_measured(device: str) -> None:
    ours = [target for target in TARGETS if target.device == device]
    found = verdicts(device, measured(device))
    assert [verdict.target for verdict in found] == ours
    assert all(verdict.ratio for verdict in found)
    assert len(set(cases.settings(device))) == len(cases.settings(device))


def test_a_cpu_has_few_rounds_but_where_targets_are() -> None:
    aimed = {(target.arch, target.k, target.n) for target in TARGETS if target.device == "cpu"}
    for setting in cases.settings("cpu"):
        more = cases.rounds(setting) > cases.FEW_ROUNDS
        assert more == ((setting.arch, setting.k, setting.n) in aimed)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_who_runs_where(device: str) -> None:
    by_name = {contender.name: contender for contender in c.CONTENDERS}
    assert by_name[c.PIPELINED].base == c.PIPELINED_REFERENCE
    for setting in cases.settings(device):
        names = [contender.name for contender in cases.contenders(setting)]
        assert (c.CAPTURED in names) == (device == "cuda")
        assert names[0] == c.VANILLA and {c.REFERENCE, c.OURS} <= set(names)
        assert {by_name[name].base for name in names} <= set(names)
        some = setting.n == 1 and (device == "cuda" or setting.arch == cases.CPU_TARGET_ARCH)
        assert (c.PIPELINED in names) == some


def test_whatever_is_compared_has_its_layout_beside_it() -> None:
    assert table.with_layout(c.VANILLA) == "vanilla eager (contiguous)"
    assert table.with_layout(c.VANILLA_CHANNELS_LAST) == "vanilla eager (channels_last)"
    for device in ("cpu", "cuda"):
        for verdict in verdicts(device, measured(device)):
            base = table.with_layout(verdict.target.base)
            captured = ", not captured" if verdict.ours == c.CAPTURED else ""
            told = table.told(verdict)
            assert told.split(";")[0].endswith(f"{base}{captured}")
            # Issue 16: captured EntProp is never held against plain steps without a word.
            if device == "cuda" and verdict.target.quantity == "seconds":
                assert "on our kernels, captured (" in told and captured


def test_a_target_without_rows_is_printed_as_unmeasured() -> None:
    only = [row for row in measured("cuda") if row["k"] == 0.2 and row["arch"] == "resnet18"]
    shown = table.summary_of("cuda", only)
    targets = [target for target in TARGETS if target.device == "cuda"]
    here = [t for t in targets if (t.arch, t.k) == ("resnet18", 0.2)]
    assert shown.count("| unmeasured |") == len(targets) - len(here) > 0
    assert shown.count("| reached |") + shown.count("| missed |") == len(here) > 0


@pytest.mark.parametrize(
    ("base", "ratio", "quantity", "said"),
    [
        (c.REFERENCE, 0.5, "seconds", "is 2.00 times as fast as {}; target 1.45"),
        (c.VANILLA, 0.87, "seconds", "takes 0.87 of the time of {}; target at most 0.90"),
        (c.OURS_VANILLA, 3.1, "seconds", "takes 3.10 times the time of {}; target at most 3.30"),
        (c.REFERENCE, 0.98, "peak_memory", "adds 0.98 of the memory of {}; target at most 1.00"),
    ],
)
def test_a_target_is_told_the_way_it_was_set(
    base: str, ratio: float, quantity: str, said: str
) -> None:
    target = next(t for t in TARGETS if t.base == base and t.quantity == quantity)
    assert said.format(table.with_layout(base)) in table.told(Verdict(target, ratio))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_page_and_readme_show_the_rows_and_the_verdicts(
    device: str, kept: dict[str, list[rows.Row]], tmp_path: Path
) -> None:
    kept[table.name_of(device)] = measured(device)
    page = table.section(device, PAGE)
    if device == "cpu":  # the fewer bars
        table.draw(device, tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    for setting in cases.settings(device):
        assert f"**{setting.arch}, {setting.batch}x3x" in page
        assert f"the paper counts {paper_cost(setting):.2g} plain steps" in page
    for line in page.splitlines():
        if line.startswith("| vanilla eager"):
            assert line.split("|")[2].strip() in ("contiguous", "channels_last")
    tables = [line.count("|") for line in page.splitlines() if line.startswith("| vanilla eager")]
    assert set(tables) == {11 if device == "cuda" else 10}
    readme = table.summary(device, PAGE)
    assert readme.count("| reached |") + readme.count("| missed |") == len(
        [target for target in TARGETS if target.device == device]
    )
    assert all(line in page for line in readme.splitlines())


def test_a_refused_contender_has_no_time(kept: dict[str, list[rows.Row]]) -> None:
    refused = kept["step_cpu"] = measured("cpu", **{c.NAIVE: None})
    page = table.section("cpu", PAGE)
    assert "| naive | contiguous | no time: its losses differ |" in page
    of_naive = [v for v in verdicts("cpu", refused) if v.target.base == c.NAIVE]
    assert of_naive and {str(verdict) for verdict in of_naive} == {"unmeasured"}

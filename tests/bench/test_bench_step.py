"""bench/step without timing anything: what it selects, and what its tables say."""

from pathlib import Path

import pytest

from bench import rows
from bench.step import cases, picture, table
from bench.step import contenders as c
from bench.step.results import paper_cost
from bench.step.targets import TARGETS, verdicts
from tests.bench.conftest import step_rows

PAGE = Path("docs/x.md")


def test_a_cpu_has_few_rounds_but_where_targets_are() -> None:
    aimed = {(target.arch, target.k, target.n) for target in TARGETS if target.device == "cpu"}
    for setting in cases.settings("cpu"):
        more = cases.rounds(setting) > cases.FEW_ROUNDS
        assert more == ((setting.arch, setting.k, setting.n) in aimed)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_who_runs_where(device: str) -> None:
    assert c.BY_NAME[c.PIPELINED].base == c.PIPELINED_REFERENCE
    settings = cases.settings(device)
    assert len(set(map(str, settings))) == len(set(settings)) == len(settings)
    for setting in settings:
        here = cases.contenders(setting)
        names = {one.name for one in here}
        assert any(one.captured for one in here) == (device == "cuda")
        assert not (setting.n > 1 and any("pipelined" in name for name in names))
        bases = {one.base for one in here} - names
        assert bases == {one.name for one in c.untimed_bases(here)}
        if device == "cpu":  # where a base is timed like the others, and one thread has them all
            assert not bases and {c.VANILLA, c.REFERENCE, c.OURS} <= names
            assert cases.at_once(setting)
        else:  # what is compared takes its turns in the same piece
            assert {*c.CAPTURED_VANILLA, c.CAPTURED} <= names
            assert cases.at_once(setting) == (setting.piece == cases.COMPILED)
            assert len(here) <= 13


def test_everyone_runs_somewhere() -> None:
    """On the networks of the headline, at the paper's setting, in one piece or another."""
    for arch in cases.IN_FULL:
        some = [s for s in cases.settings("cuda") if (s.arch, s.k, s.n) == (arch, 0.2, 1)]
        assert [setting.piece for setting in some] == ["", cases.LAYOUTS, cases.COMPILED]
        names = {one.name for setting in some for one in cases.contenders(setting)}
        assert names == c.BY_NAME.keys() - {c.NAIVE}
    last = next(s for s in cases.settings("cuda") if (s.k, s.n) == (0.6, 5))
    assert c.NAIVE in {one.name for one in cases.contenders(last)}


def test_a_layout_is_named_once() -> None:
    assert c.with_layout(c.VANILLA) == "vanilla eager (contiguous)"
    assert c.with_layout(c.VANILLA_CHANNELS_LAST) == "vanilla eager (channels_last)"
    assert c.with_layout(c.OURS) == "ours (channels_last)"
    assert c.with_layout(c.CAPTURED_CONTIGUOUS) == "ours, captured (contiguous)"
    assert len({c.with_layout(name) for name in c.BY_NAME}) == len(c.BY_NAME) == len(c.CONTENDERS)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_page_and_readme_show_the_rows_and_the_verdicts(
    device: str, kept: dict[str, list[rows.Row]]
) -> None:
    kept[table.name_of(device)] = step_rows(device)
    page = table.section(device, PAGE)
    for setting in cases.settings(device):
        assert f"**{setting.arch}, {setting.batch}x3x" in page
        assert f"the paper counts {paper_cost(setting):.2g} plain steps" in page
    for line in page.splitlines():
        if line.startswith("| vanilla eager"):
            assert line.split("|")[2].strip() in ("contiguous", "channels_last")
    tables = [line.count("|") for line in page.splitlines() if line.startswith("| vanilla eager")]
    assert set(tables) == {11 if device == "cuda" else 10}
    readme = table.summary(device, PAGE)
    said = [line.rsplit("|", 2)[1].strip() for line in readme.splitlines() if "target" in line]
    assert said == [str(verdict) for verdict in verdicts(device, kept[table.name_of(device)])]
    assert all(line in page for line in readme.splitlines())


def test_ratios_are_over_the_better_layout() -> None:
    """By hand: captured vanilla takes 8 and 10 ms, ours 12, and the paper counts 1.2."""
    where = {"arch": "resnet18", "k": 0.2, "n": 1}
    found = [row for row in step_rows("cuda") if where.items() <= row.items() and not row["piece"]]
    seconds = {
        c.VANILLA_CAPTURED: 0.010,
        c.VANILLA_CAPTURED_CHANNELS_LAST: 0.008,
        c.CAPTURED: 0.012,
    }
    for row in found:
        row["seconds"] = seconds.get(row["contender"], 0.1)
    lines = {line.split("|")[1].strip() + line.split("|")[2]: line for line in cells(found)}
    assert lines["ours, captured channels_last "].split("|")[6:9] == [" 1.50 ", " 0.12 ", " 1.25 "]
    assert lines["vanilla captured contiguous "].split("|")[6:9] == [" 1.25 ", " 0.10 ", "  "]
    shown = table.headline(found).splitlines()[3]
    assert shown == (
        "| resnet18 | 8.0 ms (channels_last) | 12.0 ms | 1.50 | 100.0 ms | 12.50 | 1.2 |"
    )
    missing = [row for row in found if row["contender"] != c.VANILLA_CAPTURED]
    assert "| resnet18 | unmeasured | 12.0 ms | unmeasured |" in table.headline(missing)
    assert "| resnet50 | unmeasured | unmeasured | unmeasured |" in table.headline(found)


def test_the_headline_says_why_there_is_no_time() -> None:
    """What was tried and refused is no gap in the measurements."""
    found = step_rows("cuda", **{c.CAPTURED: None, c.VANILLA_CAPTURED_CHANNELS_LAST: None})
    why = "no time: its losses differ"
    assert f"| resnet18 | {why} | {why} | unmeasured | 2000.0 ms |" in table.headline(found)


def cells(group: list[rows.Row]) -> list[str]:
    """The lines of a table, under its title and head."""
    return table.table_of(group).splitlines()[4:]


def test_older_rows_say_that_no_plain_step_was_captured() -> None:
    found = step_rows("cuda")
    said = "sets a graph against steps that wait for their host"
    assert said not in table.summary_of("cuda", found)
    old = [row for row in found if row["contender"] not in c.CAPTURED_VANILLA]
    assert said in table.summary_of("cuda", old)
    assert said not in table.summary_of("cpu", step_rows("cpu"))


def test_rows_of_several_commits_name_them_all() -> None:
    found = step_rows("cuda")
    found[-1]["git"] = "def"
    assert table.summary_of("cuda", found).endswith(
        "(a machine; its versions; abc; a machine; its versions; def)."
    )


def test_a_refused_contender_has_no_time(kept: dict[str, list[rows.Row]]) -> None:
    refused = kept["step_cpu"] = step_rows("cpu", **{c.NAIVE: None})
    page = table.section("cpu", PAGE)
    assert "| naive | contiguous | no time: its losses differ |" in page
    of_naive = [v for v in verdicts("cpu", refused) if c.NAIVE in v.target.base]
    assert of_naive and {str(verdict) for verdict in of_naive} == {"unmeasured"}


def test_bars_are_in_steps_of_captured_vanilla_where_all_have_it(
    kept: dict[str, list[rows.Row]], tmp_path: Path
) -> None:
    found = [row for row in step_rows("cuda") if row["arch"] == "resnet50"]
    assert picture._unit(found) == (c.CAPTURED_VANILLA, "vanilla captured in its better layout")
    found += step_rows("cpu")
    assert picture._unit(found) == ((c.VANILLA,), "vanilla eager (contiguous)")
    kept["step_cpu"] = step_rows("cpu")  # the fewer bars
    picture.draw("cpu", tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")

"""bench/ops without timing anything: what it selects, what it refuses, what its tables say."""

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from bench import rows
from bench.ops import contenders, graphs, table
from bench.ops.agreement import disagreement
from bench.ops.cases import CUDA_NORM_SHAPES, Case, cases, devices
from bench.ops.contenders import Place
from bench.ops.convolution import convolution
from bench.ops.peers import EXPECTED
from bench.timing import Comparison, Contender, Timer, compare, wall_timer
from tests.bench.conftest import WHERE
from tests.ops.conftest import needs_extension


class AsOnCuda(Place):
    """The contenders that a GPU would get, on the CPU."""

    compiled = True


@pytest.mark.parametrize("available", [True, False])
def test_a_gpu_is_measured_where_there_is_one(
    available: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert devices() == (["cpu", "cuda"] if available else ["cpu"])


def test_cases_of_each_device() -> None:
    cpu, cuda = list(cases("cpu")), list(cases("cuda"))
    assert len({case.name for case in cuda}) == len(cuda)
    assert {case.op for case in cpu if not case.target} == {"conv3x3"}
    cpu = [case for case in cpu if case.target]
    assert {case.op for case in cuda if case.target} == {"loss, ops", "loss, autograd"}
    assert {case.dtype for case in cpu} == {torch.float32}
    # cuDNN's and apex's norms take float16 in channels_last.
    half = [case for case in cuda if case.dtype == torch.float16]
    assert {case.op for case in half} == set(SMALL) == EXPECTED.keys()
    assert {case.layout for case in half} == {"channels_last"}
    cuda = [case for case in cuda if case not in half]
    assert {case.op for case in cuda if case.dtype == torch.bfloat16} == set(SMALL)
    # What the CPU measures, and norms of sizes past any cache.
    others = {case.name for case in cuda} - {
        case.name.replace("float32", "bfloat16") if case.op in SMALL else case.name for case in cpu
    }
    assert len(others) == 12
    assert all(name.endswith(("256x256x56x56", "128x64x112x112")) for name in others)
    assert len(half) == 3 * len([c for c in half if c.op == "norm"]) == 3 * len(CUDA_NORM_SHAPES)


SMALL = {
    "norm": partial(contenders.one_group, (32, 16, 8, 9), residual=False),
    "norm + add": partial(contenders.one_group, (32, 16, 8, 9), residual=True),
    "two groups": partial(contenders.two_groups, (32, 16, 8, 9)),
}
STEPS = {
    "perturb": partial(contenders.perturb, (10, 3, 6, 6)),
    "gather": partial(contenders.gather, (10, 3, 6, 6)),
}
LOSSES = {
    "loss, ops": partial(contenders.loss, (20, 7), autograd=False),
    "loss, autograd": partial(contenders.loss, (20, 7), autograd=True),
}
BUILDERS = (
    {f"{n}-{f}": lambda p, b=b, f=f: b(f, p) for n, b in SMALL.items() for f in contenders.FORMATS}
    | {name: lambda p, b=b: b(place=p) for name, b in (STEPS | LOSSES).items()}
    | {"conv3x3": partial(convolution, (3, 16, 6, 7))}
)  # fmt: skip


@needs_extension
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", BUILDERS)
def test_contenders_agree(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("two"):
        pytest.importorskip("timm")
    if name.startswith("loss") and dtype == torch.bfloat16:
        dtype = torch.float32  # no such case
    monkeypatch.setattr(torch, "compile", lambda function: function)
    torch.manual_seed(1)
    built = BUILDERS[name](AsOnCuda("cpu", dtype))
    assert {"ours", "eager"} <= built.keys()
    assert name == "conv3x3" or "compile" in built
    assert disagreement(built, dtype) is None


def test_disagreement_is_named() -> None:
    value, index = torch.randn(9), torch.tensor([2, 0])
    calls = []

    def contender(name: str, *results: torch.Tensor) -> Contender:
        def call() -> tuple[torch.Tensor, ...]:
            calls.append(name)
            return results

        return call

    def told(*ours: torch.Tensor) -> str | None:
        built = {"ours": contender("ours", *ours), "eager": contender("eager", value, index)}
        return disagreement(built | {"timm": contender("timm", value, index)}, torch.float32)

    assert told(value + 1e-6, index) is None
    assert calls == ["eager", "timm", "ours"]
    assert told(value * 1.02, index) == "result 0 of ours is not eager's"
    assert told(torch.full_like(value, torch.nan), index) == "result 0 of ours is not eager's"
    assert told(value, index.flip(0)) == "result 1 of ours is not eager's"
    assert told(value) == "ours returns 1 results, eager 2"


def measured(
    ratio: float, target: float | None, *, kept: bool = False, spread: bool = False
) -> rows.Row:
    case = Case("norm", "contiguous", (2, 3), torch.float32, target, 800, dict)
    comparison = Comparison({"ours": 1e-6, "eager": ratio * 1e-6, "timm": 3e-6})
    one = table.Measured(case, "warm", kept, comparison)
    if spread:
        comparison.quartiles.update(ours=(0.9e-6, 1.2e-6), eager=(2e-6, 3e-6), timm=None)
        one = replace(one, peak_memory={"ours": 3 << 19, "eager": 5 << 20})
    return table.row_of(one, bandwidth=1e9)


def test_a_row_says_whether_its_target_was_reached() -> None:
    row = measured(2.0, 1.5)
    assert (row["verdict"], row["of_copy"], row["dtype"]) == ("reached", 0.8, "float32")
    assert (row["best_peer"], row["best_ratio"]) == ("eager", 2.0)
    assert measured(1.2, 1.5)["verdict"] == "missed"
    assert measured(0.9, 0.5)["verdict"] == measured(0.9, None)["verdict"] == "slower than eager"
    assert measured(1.1, None)["verdict"] == "faster"
    assert measured(1.2, 1.5, kept=True)["verdict"] == "faster"  # not what targets are about


def test_table_ends_with_the_geometric_mean() -> None:
    lines = table.table([measured(1.0, 2.5), measured(9.0, 2.5)])
    assert lines[-1][5:9] == ["geometric mean", "3.00", "2.5", "reached"]
    assert lines[1][6:] == ["1.00", "2.5", "missed", "0.001", "80%", "3.00 timm"]
    assert {len(line) for line in lines} == {len(table.HEAD)}


def test_the_spread_is_shown_where_a_row_has_it() -> None:
    old = {n: v for n, v in measured(2.0, 2.5).items() if n not in ("quartiles", "peak_memory")}
    assert table.table([old])[0] == table.table([measured(2.0, 2.5)])[0] == table.HEAD
    lines = table.table([old, measured(1.0, 2.5, spread=True)])
    more = ["ours, quartiles", "eager, quartiles", "peak MiB, ours and eager"]
    assert lines[0] == [*table.HEAD, *more] and {len(line) for line in lines} == {len(lines[0])}
    shown = [line[len(table.HEAD) :] for line in lines[1:]]
    assert shown == [[""] * 3, ["0.001 to 0.001", "0.002 to 0.003", "1.5, 5.0"], [""] * 3]


def test_rows_of_before_are_a_page_without_a_spread(kept: dict[str, list[rows.Row]]) -> None:
    kept["ops_cpu"] = [measured(2.0, 2.5) | WHERE]
    assert "quartiles" not in table.section("ops_cpu", Path("docs/x.md"))
    kept["ops_cpu"] = [measured(2.0, 2.5, spread=True) | WHERE]
    text = table.section("ops_cpu", Path("docs/x.md"))
    assert "| 0.001 to 0.001 | 0.002 to 0.003 | 1.5, 5.0 |" in text and table.PEAK_NOTE in text


def test_summary_has_the_worst_shape_and_what_kept_memory_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "ROWS", tmp_path)
    rows.write("ops_cpu", [measured(1.0, 2.5), measured(9.0, 2.5), measured(2.0, 2.5, kept=True)])
    lines = table.summary("ops_cpu", Path("README.md")).splitlines()
    assert lines[2] == "| norm | contiguous | 3.00 | 1.00 | 2.5 | reached | 2.00 |"
    assert lines[3] == ""


def test_part_of_the_cases_is_not_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [
        table.Measured(case, "warm", kept, Comparison({}))
        for case in cases("cpu")
        for kept in (False, True)
    ]
    monkeypatch.setattr(table, "MEASURED", {"cpu": every})
    assert table.is_whole("cpu")
    every.pop()
    assert not table.is_whole("cpu")


def test_rows_survive_a_run_that_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "PARTS", tmp_path / "parts")
    path = rows.begin("ops")
    rows.add("ops", [{"ratio": 1.5}])
    assert json.loads(path.read_text()) == {"ratio": 1.5} | rows.stamp()
    rows.add("ops", [{"ratio": 2.5}])
    assert len(path.read_text().splitlines()) == 2
    assert rows.begin("ops").read_text() == ""
    monkeypatch.setattr(rows, "ROWS", tmp_path / "rows")
    for whole in (False, True):
        said = rows.keep("ops", [{"ratio": 3.5}], whole=whole)
        kept = tmp_path / ("rows" if whole else "parts") / "ops.jsonl"
        assert str(kept) in said and json.loads(kept.read_text())["ratio"] == 3.5
        assert (tmp_path / "rows" / "ops.jsonl").exists() == whole


def test_a_new_case_is_put_among_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is measured again in part replaces nothing; each row says where it is from."""
    monkeypatch.setattr(rows, "ROWS", tmp_path / "rows")
    monkeypatch.setattr(rows, "PARTS", tmp_path / "parts")
    old = [{"case": "a", "peer": None, "ratio": 1.0}, {"case": "b", "peer": None, "ratio": 2.0}]
    monkeypatch.setattr(rows, "stamp", lambda: WHERE)
    rows.keep("some", old, whole=False, by=("case", "peer"))
    assert not rows.there("some")  # a part is no table
    rows.keep("some", old, whole=True, by=("case", "peer"))
    monkeypatch.setattr(rows, "stamp", lambda: WHERE | {"git": "later"})
    new = [{"case": "b", "peer": None, "ratio": 9.0}, {"case": "c", "peer": None, "ratio": 3.0}]
    said = rows.keep("some", new, whole=False, by=("case", "peer"))
    assert "1 of them are new" in said
    kept = rows.read("some")
    assert {row["case"]: (row["ratio"], row["git"]) for row in kept} == {
        "a": (1.0, "abc"),
        "b": (2.0, "abc"),
        "c": (3.0, "later"),
    }
    assert rows.origins(kept) == "a machine; its versions; abc, later"


def test_medians_and_quartiles_of_what_the_timers_say() -> None:
    told = {"ours": iter([9.0, 1.0, 2.0]), "eager": iter([5.0, 4.0, 8.0]), "timm": iter([3.0] * 3)}
    timers: dict[str, Timer] = {name: partial(next, values) for name, values in told.items()}
    comparison = compare(timers, budget=0, rounds=3)
    assert comparison.seconds == {"ours": 2.0, "eager": 5.0, "timm": 3.0}
    assert comparison.quartiles == {"ours": (1.0, 9.0), "eager": (4.0, 8.0), "timm": (3.0, 3.0)}
    assert comparison.ratio("eager") == 2.5 and comparison.best_peer() == "timm"
    assert compare({"ours": lambda: 1.0}, budget=0, rounds=1).quartiles == {"ours": None}


@pytest.mark.parametrize(("seconds", "calls"), [(1e-5, 1 + 20), (0.001, 1 + 1), (0.05, 1)])
def test_short_calls_are_repeated_and_made_once_before_the_clock_starts(
    seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, made = [0.0], []

    def call() -> list[torch.Tensor]:
        clock[0] += seconds
        made.append(clock[0])
        return []

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    timer = wall_timer(call)
    made.clear()
    assert timer() == pytest.approx(seconds)
    assert len(made) == calls


@pytest.mark.parametrize(
    ("bytes_of_a_set", "built", "cold"), [(1 << 30, 1, 1), (100, 2, 3), (1, 1, None)]
)
def test_sets_of_inputs_on_cuda(
    bytes_of_a_set: int, built: int, cold: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first set is the one whose results were compared; others are made until they suffice."""
    made: list[dict[str, Contender]] = []

    def build() -> dict[str, Contender]:
        made.append({"ours": lambda: []})
        return made[-1]

    def timer(calls: list[Contender], *, keep: bool) -> Timer:
        return lambda: len(set(map(id, calls))) if len(calls) >= graphs.CALLS else 0

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: bytes_of_a_set * len(made))
    monkeypatch.setattr(graphs, "sets_past_cache", lambda size: -(-300 // size))
    monkeypatch.setattr(graphs, "graph_timer", timer)
    timers = graphs.cuda_timers({"ours": lambda: []}, build)
    assert len(made) == built and timers["warm"]["ours"]() == 1
    assert timers.keys() == {"warm", "cold"} if cold else timers.keys() == {"warm"}
    assert not cold or timers["cold"]["ours"]() == cold

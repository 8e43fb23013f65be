"""bench/gpu_campaign.sh without a GPU: its pieces, its budget, what it leaves and what it says."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench.step.cases import settings
from entprop_fast import build

ROOT = Path(__file__).parents[2]
SCRIPT, PIECES = ROOT / "bench" / "gpu_campaign.sh", ROOT / "bench" / "gpu_pieces.sh"
ALL = "all-in-14-minutes"

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("timeout") is None, reason="needs bash, timeout"
)

# In place of Python: it answers the probe, writes down what it is asked to run, and does what the
# test says of a module.
STUB = """#!/usr/bin/env bash
if [[ $1 == -c ]]; then
  [[ $2 == *get_device_capability* ]] || exit 1
  [[ -n $STUB_DEVICES ]] || exit 3
  echo "$STUB_DEVICES 9.0 ${STUB_BUILT:-built}"
  exit
fi
echo "$*" >>"$STUB_CALLS"
case "$*" in
  $STUB_FAILS) echo "it broke"; exit 4 ;;
  $STUB_HANGS)
    echo '{"table": "norm_cuda", "both": 1.5}' >>"$ENTPROP_ROWS"
    sleep 60
    ;;
  *bench.ops.sweep*) printf '{"table": "norm_cuda", "both": %s}\\n' 1 2 3 >>"$ENTPROP_ROWS" ;;
  *captured_run\\ fashion_mnist) echo "skipped: the data set is not there" ;;
  *tests/gpu*) echo "===== 7 passed, 2 deselected in 1.25s =====" ;;
  *test_prefetch.py*) echo "3 passed in 0.25s" ;;
esac
"""


class Campaign:
    """Runs the script with a stand-in for Python."""

    def __init__(self, folder: Path) -> None:
        self.out, self.calls = folder / "out", folder / "calls"
        self.stub = folder / "python"
        self.stub.write_text(STUB)
        self.stub.chmod(0o755)
        self.calls.write_text("")

    def run(self, *pieces: str, **settings: str) -> subprocess.CompletedProcess[str]:
        told = {"STUB_DEVICES": "1", "STUB_FAILS": "nothing", "STUB_HANGS": "nothing"} | settings
        return subprocess.run(
            ["bash", str(SCRIPT), *pieces],
            env=os.environ
            | {"PYTHON": str(self.stub), "OUT": str(self.out), "STUB_CALLS": str(self.calls)}
            | told,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def begun(self, run: subprocess.CompletedProcess[str]) -> dict[str, int]:
        """Return the pieces that were started, and the seconds that each got."""
        found = re.findall(r"^== (\S+): at most (\d+) s$", run.stdout, re.M)
        return {name: int(seconds) for name, seconds in found}


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path)


def listed() -> dict[str, int]:
    """Return every piece of the script's two lists, with its seconds."""
    lists = re.findall(r"^(?:BEST|OTHERS)=\((.*?)^\)", SCRIPT.read_text(), re.M | re.S)
    pairs = (word.split(":") for one in lists for word in one.split())
    return {name: int(seconds) for name, seconds in pairs}


def test_the_scripts_are_clean() -> None:
    for script in (SCRIPT, PIECES):
        subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        named = [str(script.relative_to(ROOT)) for script in (SCRIPT, PIECES)]
        subprocess.run(["shellcheck", "-x", *named], check=True, cwd=ROOT)


def test_header_usage_and_functions_name_the_same_pieces(campaign: Campaign) -> None:
    header = SCRIPT.read_text().partition("set -uo")[0]
    described = re.findall(r"^#   ([a-z][\w-]*)  +\S", header, re.M)
    usage = campaign.run("no-such-piece")
    assert usage.returncode == 2 and campaign.run().returncode == 2
    named = usage.stderr.partition("pieces: ")[2].split()
    functions = re.findall(r"^piece_([\w-]+)\(\)", PIECES.read_text(), re.M)
    assert described == named == list(listed())
    assert sorted(functions) == sorted(named) and campaign.calls.read_text() == ""


def test_a_piece_and_the_whole_fit_into_their_time(campaign: Campaign) -> None:
    dry = campaign.run("--dry-run", ALL)
    *pieces, total = dry.stdout.splitlines()
    seconds = [int(line.split()[1]) for line in pieces]
    assert dry.returncode == 0 and total == f"12 pieces, at most {sum(seconds)} s of 840 s"
    assert sum(seconds) <= 840
    most = int(re.findall(r"^MOST=(\d+)", SCRIPT.read_text(), re.M)[0])
    assert max(listed().values()) <= most < 170
    assert campaign.run("--dry-run", "norms", "memory").stdout.endswith("2 pieces, at most 160 s\n")
    assert not campaign.out.exists() and campaign.calls.read_text() == ""


@pytest.mark.parametrize("what", [ALL, "norms"])
def test_without_a_device_nothing_runs(what: str, campaign: Campaign) -> None:
    run = campaign.run(what, STUB_DEVICES="")
    assert run.returncode == 3 and "no CUDA device" in run.stderr
    assert campaign.calls.read_text() == "" and not campaign.out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_real_interpreter_is_asked(campaign: Campaign) -> None:
    run = campaign.run("norms", PYTHON=sys.executable)
    assert run.returncode == 3 and "is_available() is False" in run.stderr
    run = campaign.run("norms", PYTHON="no-such-python")
    assert run.returncode == 3 and "see above" in run.stderr


@pytest.mark.parametrize("backends", [("cpu",), ("cpu", "cuda")])
def test_what_the_interpreter_answers(
    backends: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (probe,) = re.findall(r"^PROBE='(.*?)^'", SCRIPT.read_text(), re.M | re.S)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (12, 0))
    monkeypatch.setattr(build, "build_info", lambda: SimpleNamespace(backends=backends))
    exec(probe, {})
    said = capsys.readouterr()
    assert said.out.split() == ["2", "12.0", "built" if "cuda" in backends else "missing"]
    assert said.err == ""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tyro" else real(name)
    )
    exec(probe, {})
    assert capsys.readouterr().err == "not installed, so that steps and runs fail: tyro\n"


def test_the_whole_runs_in_order_and_says_what_it_has(campaign: Campaign) -> None:
    run = campaign.run(ALL)
    assert run.returncode == 0, run.stdout
    begun = campaign.begun(run)
    assert list(begun) == list(listed())[:12] and max(begun.values()) <= 165
    lines = run.stdout.splitlines()
    (suite,) = (line for line in lines if line.startswith("suite: "))
    assert "suite: passed; " in suite and "7 passed, 2 deselected in 1.25s" in suite
    assert ";3 passed in 0.25s; " in suite
    (norms,) = (line for line in lines if line.startswith("norms: "))
    assert norms.endswith(f"3 rows of norm_cuda in {campaign.out}/rows.jsonl")
    assert [line for line in lines if line.startswith("fashion_mnist: skipped: the data set")]
    assert [line for line in lines if line.startswith("nccl: skipped: one CUDA device")]
    log = (campaign.out / "campaign.log").read_text()
    assert len(re.findall(r"^== ", log, re.M)) == 12
    # From a lent machine eight files come back.
    assert len(list(campaign.out.iterdir())) <= 8
    assert campaign.run("nccl", STUB_DEVICES="2").returncode == 0
    assert "tests/gpu/test_gpu_two_devices.py" in campaign.calls.read_text().splitlines()[-1]


def test_what_does_not_fit_is_left_out_and_named(campaign: Campaign) -> None:
    run = campaign.run(ALL, BUDGET="92")
    left = [name for name, seconds in listed().items() if seconds > 87][:3]
    assert left == ["build", "suite", "steps-wrn"]
    assert f"left out, as there was no time: {' '.join(left)}\n" in run.stdout
    assert list(campaign.begun(run)) == [n for n in list(listed())[:12] if n not in left]
    assert run.returncode == 0


def test_what_a_piece_leaves_over_goes_to_the_next(campaign: Campaign) -> None:
    seconds = listed()
    begun = campaign.begun(campaign.run("norms", "digits", BUDGET="105"))
    # 100 s are to be shared: the first gets what the second does not need.
    assert 0 <= 100 - seconds["digits"] - begun["norms"] <= 12 and 0 <= 100 - begun["digits"] <= 12
    alone = campaign.begun(campaign.run("norms", "digits"))
    assert alone == {"norms": 165, "digits": 165}


def test_a_piece_that_is_cut_off_leaves_its_rows(campaign: Campaign) -> None:
    script = SCRIPT.read_text().replace("MOST=165", "MOST=2")
    folder = campaign.out.parent / "bench"
    folder.mkdir()
    (folder / SCRIPT.name).write_text(script)
    shutil.copy(PIECES, folder)
    run = subprocess.run(
        ["bash", str(folder / SCRIPT.name), "norms", "digits"],
        env=os.environ
        | {"PYTHON": str(campaign.stub), "OUT": str(campaign.out), "STUB_DEVICES": "1"}
        | {"STUB_CALLS": str(campaign.calls), "STUB_HANGS": "*sweep*", "STUB_FAILS": "nothing"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1 and run.stdout.endswith("failed: norms\n")
    assert "norms: stopped at its limit; " in run.stdout and "1 rows of norm_cuda" in run.stdout
    row = json.loads((campaign.out / "rows.jsonl").read_text())
    assert row == {"table": "norm_cuda", "both": 1.5}
    assert "digits: passed" in run.stdout


def test_a_failure_is_shown_and_the_rest_goes_on(campaign: Campaign) -> None:
    run = campaign.run("norms", "memory", STUB_FAILS="*sweep*")
    assert run.returncode == 1 and run.stdout.endswith("failed: norms\n")
    assert "norms: failed (4)" in run.stdout and "   | it broke" in run.stdout
    assert "memory: passed" in run.stdout


def test_what_is_not_built_is_built_first(campaign: Campaign) -> None:
    run = campaign.run("norms", STUB_BUILT="missing")
    assert list(campaign.begun(run)) == ["build", "norms"]
    assert "setup.py build_ext --inplace" in campaign.calls.read_text()
    campaign.calls.write_text("")
    assert "build" not in campaign.begun(campaign.run("norms"))
    assert "build_ext" not in campaign.calls.read_text()


def test_every_step_is_measured_by_one_piece() -> None:
    chosen = re.findall(r"^piece_([\w-]+)\(\) \{ steps \"(.*)\"; \}$", PIECES.read_text(), re.M)
    assert len(chosen) == 7

    def selects(expression: str, name: str) -> bool:
        """As pytest's ``-k``: a word stands for whether the name holds it."""
        words = re.sub(
            r"[\w.-]+",
            lambda m: m[0] if m[0] in ("and", "or", "not") else str(m[0] in name),
            expression,
        )
        return bool(eval(words))

    kinds = {getattr(setting, "piece", "") for setting in settings("cuda")}
    for piece, expression in chosen:
        of_kind = re.search(r"(?<!not )\b(layouts|compiled)\b", expression)
        if of_kind is None or of_kind[0] in kinds:
            assert any(selects(expression, str(setting)) for setting in settings("cuda")), piece
    for setting in settings("cuda"):
        by = [piece for piece, expression in chosen if selects(expression, str(setting))]
        assert len(by) == 1, (str(setting), by)


MODULES = sorted(set(re.findall(r"-m (bench[\w.]+)", PIECES.read_text())))


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would begin to measure")
@pytest.mark.parametrize("module", [one for one in MODULES if one != "bench.roofline"])
def test_a_command_says_that_there_is_no_device(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [module])
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__")
    assert str(end.value) == "no CUDA device: torch.cuda.is_available() is False"


def test_every_file_that_a_piece_runs_is_there() -> None:
    named = set(re.findall(r"(?<= )(?:tests|bench)/[\w/]+(?:\.py)?(?=[ ;)\n])", PIECES.read_text()))
    assert {"tests/gpu", "bench/step", "bench/ops", "bench/recipes"} < named
    assert [name for name in named if not (ROOT / name).exists()] == []

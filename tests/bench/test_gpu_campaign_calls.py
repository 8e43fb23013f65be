"""How bench/gpu_campaign.sh is called: from where, with what settings, and how it is ended."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import rows
from bench.conftest import pytest_runtestloop
from tests.bench.test_gpu_campaign import ROOT, SCRIPT, Campaign
from tests.bench.test_gpu_campaign import campaign as campaign

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or shutil.which("timeout") is None, reason="needs bash, timeout"
)
_SHEBANG = "#!/usr/bin/env bash"


@pytest.mark.parametrize("budget", ["abc", "08", "-5", "1.5", "14m", "0"])
def test_a_budget_is_a_number_of_seconds(budget: str, campaign: Campaign) -> None:
    run = campaign.run("norms", BUDGET=budget)
    assert run.returncode == 2 and f"BUDGET={budget}: expected a whole number" in run.stderr
    assert campaign.calls.read_text() == "" and not campaign.out.exists()


def test_an_exported_clock_does_not_count(campaign: Campaign) -> None:
    assert "norms" in campaign.begun(campaign.run("norms", BUDGET="60", SECONDS="500"))


def test_paths_are_the_callers(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(campaign.out.parent)
    run = campaign.run("norms", OUT="a folder/out", PYTHON="./python", CDPATH=str(ROOT.parent))
    assert run.returncode == 0, run.stderr
    rows = campaign.out.parent / "a folder" / "out" / "rows.jsonl"
    assert f"3 rows of norm_cuda in {rows.parent.parent.parent}" in run.stdout and rows.exists()
    assert campaign.run("collect", "a folder/out").returncode == 0
    called = campaign.calls.read_text().splitlines()[-1]
    assert called.startswith("-m bench.collect /") and called.endswith("/a folder/out")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_a_campaigns_tests_do_not_measure_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = SimpleNamespace(testsfailed=0)
    pytest_runtestloop(session)
    monkeypatch.setenv(rows.JOURNAL, "rows.jsonl")
    with pytest.raises(pytest.exit.Exception, match="no CUDA device"):
        pytest_runtestloop(session)
    session.testsfailed = 1  # a file that cannot be imported, which pytest tells
    pytest_runtestloop(session)


def test_what_runs_ends_with_the_script(campaign: Campaign) -> None:
    """A command that is left behind would hold the GPU until its own limit."""
    ended = campaign.out.parent / "ended"
    stub = campaign.stub.read_text().replace("sleep 60", f"sleep 60 & wait; : >{ended}")
    campaign.stub.write_text(stub.replace(_SHEBANG, f"{_SHEBANG}\ntrap : TERM"))
    settings = {"STUB_DEVICES": "1", "STUB_HANGS": "*sweep*", "STUB_FAILS": "nothing"}
    settings |= {"PYTHON": str(campaign.stub), "STUB_CALLS": str(campaign.calls)}
    script = subprocess.Popen(
        ["bash", str(SCRIPT), "norms", "memory"],
        env=os.environ | settings | {"OUT": str(campaign.out)},
        stdout=subprocess.DEVNULL,
    )
    for _ in range(300):
        if (campaign.out / "rows.jsonl").exists():
            break
        time.sleep(0.1)
    assert not ended.exists()
    script.terminate()
    assert script.wait(timeout=30) == 143
    assert ended.exists() and "ragged" not in campaign.calls.read_text()

"""Where the page goes, and what it may replace."""

from __future__ import annotations

from pathlib import Path

import pytest

from entprop_fast.lab.cli import report, train
from entprop_fast.lab.run_report.page import MARK
from entprop_fast.lab.run_report.read_run import read_runs
from tests.lab.conftest import Args, Call
from tests.lab.run_report.conftest import Copied

pytestmark = pytest.mark.usefixtures("undrawn", "without_pictures")


def test_a_report_is_written_anew_and_another_s_file_is_not(copied: Copied, call: Call) -> None:
    folder = copied("run", "checkpoint.pt", "checkpoint.prev.pt", "model.safetensors")
    page = folder / "report.html"
    words = [str(folder), "--images", "0"]
    for before in (MARK + b" of an earlier day", None):
        if before is not None:
            page.write_bytes(before)
        assert str(page) in call(report, words)
        assert page.read_bytes().startswith(MARK) and page.stat().st_size > 10_000
    page.write_bytes(b"<!doctype html>\nmine")
    assert "--overwrite" in call(report, words, 2)
    assert page.read_bytes() == b"<!doctype html>\nmine"
    call(report, [*words, "--overwrite"])
    assert page.read_bytes().startswith(MARK)


def test_nothing_is_written_through_a_link(copied: Copied, call: Call, tmp_path: Path) -> None:
    folder = copied("run", "checkpoint.pt", "checkpoint.prev.pt", "model.safetensors")
    (tmp_path / "kept").write_bytes(MARK)
    (folder / "report.html").symlink_to(tmp_path / "kept")
    call(report, [str(folder)])
    assert (tmp_path / "kept").read_bytes() == MARK
    assert not (folder / "report.html").is_symlink()


def test_a_run_that_is_replaced_takes_its_report_along(
    copied: Copied, call: Call, tiny: Args
) -> None:
    folder = copied("run")
    (folder / "report.html").write_bytes(MARK)
    call(train, tiny(folder, "--epochs", "1", "--corruptions", "none", "--overwrite"))
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("value", ["1e400", "NaN", "1e31", "9" * 5000, "true", '"x"', "null"])
def test_what_is_no_number_of_an_epoch(value: str, tmp_path: Path) -> None:
    line = f'{{"epoch": 1, "sa": {value}, "loss": 1}}'
    (tmp_path / "metrics.jsonl").write_text(line)
    (run,) = read_runs([tmp_path])
    assert run.rows in ([{"epoch": 1, "loss": 1}], [])  # Python reads no number of 5000 digits

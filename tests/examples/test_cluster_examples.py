"""The Slurm script and the Kubernetes manifest: syntax, what belongs together, and signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from entprop_fast.lab.training import recipe
from tests.children import ROOT, end_with_parent

SBATCH = ROOT / "examples" / "slurm" / "train.sbatch"
MANIFEST = ROOT / "examples" / "kubernetes" / "train.yaml"

SRUN = """#!/bin/bash
echo "srun $*" >> "$LOG"
trap 'echo "step got SIGTERM" >> "$LOG"; exit 143' TERM
echo started >> "$LOG"
for _ in $(seq "${SECONDS_OF_STEP}0"); do sleep 0.1; done
exit "${CODE:-0}"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then printf 'node7\\nnode8\\n'; else echo "scontrol $*" >> "$LOG"; fi
"""


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, str]:
    """Slurm's commands, played, and the variables of a job of two nodes."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_ID": "12345", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    slurm |= {"SLURM_JOB_NODELIST": "node[7-8]", "LOG": str(tmp_path / "log")}
    return {**slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SECONDS_OF_STEP": "0"}


def batch(environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["bash", str(SBATCH), *arguments], env=environment, preexec_fn=end_with_parent
    )


def test_the_script_is_bash() -> None:
    subprocess.run(["bash", "-n", str(SBATCH)], check=True)
    if (shellcheck := shutil.which("shellcheck")) is not None:
        subprocess.run([shellcheck, str(SBATCH)], check=True)
    lines = SBATCH.read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH ")]
    first = next(number for number, line in enumerate(lines) if line and line[0] != "#")
    assert lines[0] == "#!/bin/bash"
    assert all(lines.index(line) < first for line in directives)  # later ones are comments
    assert {"#SBATCH --requeue", "#SBATCH --ntasks-per-node=1"} <= set(directives)


@pytest.mark.parametrize("code", ["0", "1"])
def test_the_step_is_a_job_of_all_nodes_and_its_code_the_script_s(
    code: str, cluster: dict[str, str]
) -> None:
    job = batch(cluster | {"CODE": code}, "--recipe", "imagenet", "--data-dir", "a folder")
    assert job.wait(10) == int(code)
    log = Path(cluster["LOG"]).read_text()
    called = next(line for line in log.splitlines() if line.startswith("srun "))
    assert "--nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=node7:" in called
    assert called.endswith(
        "-m entprop_fast.train --recipe imagenet --data-dir a folder "
        "--out runs/slurm-12345 --resume"
    )
    assert "requeue" not in log


def test_slurm_s_warning_saves_and_queues_the_job_again(cluster: dict[str, str]) -> None:
    job = batch(cluster | {"SECONDS_OF_STEP": "20"})
    log, until = Path(cluster["LOG"]), time.monotonic() + 60
    while not (log.exists() and "started" in log.read_text()):
        assert time.monotonic() < until
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(10) == 0
    assert log.read_text().splitlines()[-2:] == ["step got SIGTERM", "scontrol requeue 12345"]


def test_the_manifest_s_parts_fit() -> None:
    service, job = yaml.safe_load_all(MANIFEST.read_text())
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    name, spec = job["metadata"]["name"], job["spec"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"]
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert pod["restartPolicy"] in ("OnFailure", "Never")  # a Job takes no other
    (container,) = pod["containers"]
    options = _options(container["command"])
    assert options["nnodes"] == str(spec["completions"])
    assert options["nproc-per-node"] == str(container["resources"]["limits"]["nvidia.com/gpu"])
    port = service["spec"]["ports"][0]["port"]
    assert container["ports"] == [{"containerPort": port}]
    assert options["rdzv-endpoint"] == f"{name}-0.{pod['subdomain']}:{port}"
    assert container["image"] == "IMAGE"  # is to be built
    volumes = {volume["name"] for volume in pod["volumes"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == volumes and "/dev/shm" in mounts.values()
    assert Path(options["out"]).parent == Path(mounts["runs"])
    assert options["data-dir"] == mounts["data"]
    assert recipe.resolve(options["recipe"]).dataset == "imagenet"


def _options(command: list[str]) -> dict[str, Any]:
    assert command[0] == "torchrun" and command[command.index("-m") + 1] == "entprop_fast.train"
    assert "--resume" in command
    pairs = (word.removeprefix("--").partition("=") for word in command if word.startswith("--"))
    return {name: value for name, _, value in pairs}

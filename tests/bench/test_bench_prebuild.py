"""bench/prebuild.py without nvcc: whose headers a module is compiled with, what it is linked to."""

import subprocess
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from bench import prebuild
from csrc import build
from csrc.toolchain import Cuda, Toolchain, Unavailable, find_cxx


def test_a_module_for_another_python_needs_libtorch_cuda(tmp_path: Path) -> None:
    try:
        cxx = find_cxx()
    except Unavailable as missing:
        pytest.skip(str(missing))
    cuda = Cuda(("nvcc",), "13.0", ("-gencode=arch=compute_90,code=sm_90",))
    toolchain = Toolchain(cxx, tmp_path / "torch", "2.11.0", cuda, None)
    module = tmp_path / "_C.cpython-399.so"
    compiles, link = prebuild.steps(toolchain, "/other/include", tmp_path, module)

    assert [step.inputs[0] for step in compiles] == build.sources(toolchain)
    (bindings,) = (step for step in compiles if step.inputs[0].name == "bindings.cpp")
    assert "/other/include" in bindings.command
    assert all(sysconfig.get_path("include") not in step.command for step in compiles)
    assert '"2.11.0"' in (tmp_path / "build_config.h").read_text()

    # The last words of the link, with which a program that uses nothing of it needs it.
    start = link.command.index("-Xlinker")
    words = [word.removeprefix("-Xlinker") for word in link.command[start:]]
    words = [f"-Wl,{word}" if word == "--no-as-needed" else word for word in words if word]
    program = tmp_path / "program.so"
    source = ["-x", "c++", "/dev/null", "-x", "none"]
    subprocess.run(
        [*cxx, "-shared", *source, f"-L{tmp_path}", *words, "-o", str(program)], check=True
    )
    assert b"libtorch_cuda.so" in program.read_bytes()
    assert link.output == module


def test_wheels_are_those_that_are_installed_here() -> None:
    command = prebuild.download("3.12")
    assert command[command.index("--python-version") + 1] == "3.12"
    wanted = dict(one.split("==") for one in command if "==" in one)
    assert wanted == {name: metadata.version(name) for name in prebuild.LACKING}


def test_every_call_ends_in_its_time() -> None:
    carry, first, more, here = prebuild.instructions(["a.so", ".whl"], "abc").splitlines()
    assert carry == "carry: a.so .whl" and here.endswith("gpu_campaign.sh collect FOLDER")
    assert "BUDGET=560; " in first and "BUDGET=SECONDS; " in more
    for call in (first, more):
        command = call[call.index("python3") :]
        assert "ENTPROP_GIT=abc BUDGET=" in command and len(command) < 2000
        subprocess.run(["bash", "-n", "-c", command], check=True)
        # Where the wheels are not to be had nothing runs: without them, and without a budget.
        ran = subprocess.run(
            ["bash", "-c", f"python3() {{ return 5; }}; bash() {{ echo ran; }}; {command}"],
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 5 and ran.stdout == ""


def test_what_travels_is_added_up(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("*.so\n.whl/\n")  # 11 bytes
    (tmp_path / ".whl" / "deep").mkdir(parents=True)
    for name, size in (("new.py", 100), ("a.so", 1000), (".whl/deep/b", 10_000), ("c.so", 1e6)):
        (tmp_path / name).write_bytes(b"x" * int(size))
    assert prebuild.bytes_of(tmp_path, ["a.so", ".whl"]) == 11_111

"""Try what ``make wheel`` left in dist/ under every Python at hand: ``python -m tests.wheel dist``.

A clean environment holds the wheel alone; torch and the rest are found through a .pth, as nothing
of theirs is tried here and they are gigabytes. Interpreters named after dist are tried as well,
those of environments with a torch, say. One without torch can still load the compiled module.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13")
HERE = Path(__file__).resolve().parent
# The environment's own entprop_fast comes before what the .pth adds.
SITE = "import torch, pathlib; print(pathlib.Path(torch.__file__).parent.parent, torch.__version__)"
VERSION = "import sys; print('{}.{}'.format(*sys.version_info))"
# The module and torch's libraries, which are no part of Python, without the package.
LOAD = """
import ctypes, sys
from importlib.util import module_from_spec, spec_from_file_location
for library in sys.argv[2:]:
    ctypes.CDLL(library, ctypes.RTLD_GLOBAL)
spec = spec_from_file_location("_C", sys.argv[1])
module = module_from_spec(spec)
spec.loader.exec_module(module)
print(module.build_info()["python_target"])
"""
PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"
TRAIN = "--train-size 64 --batch-size 16 --epochs 1 --corruptions none --device cpu --threads 1"


def main(folder: Path, *interpreters: str) -> int:
    """Try everything, a line each, and return the exit code.

    Args:
        folder: of wheel and source archive.
        interpreters: beside those that are found.
    """
    (wheel,), (archive,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    check_links(wheel, archive)
    print(f"{archive.name}, {wheel.name}: kernels/ are files, no link")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for version, interpreter in at_hand(interpreters):
            if interpreter is None:
                print(f"python {version}: untried, it is not on this machine")
                continue
            said = try_under(interpreter, wheel, Path(tempfile.mkdtemp(dir=work)))
            print(f"python {version}, {interpreter}: {said}", flush=True)
        print(f"without a compiler: {try_without_a_compiler(archive, work / 'pure')}")
    return 0


def at_hand(interpreters: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each version with every interpreter of it, None where there is none."""
    found = {one: version_of(one) for one in (sys.executable, *interpreters)}
    for version in PYTHONS:
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
        candidates = [shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")]
        ours: list[str | None] = [one for one, of in found.items() if of == version]
        others = (str(one) for one in candidates if one and version_of(str(one)) == version)
        for one in ours or [next(others, None)]:
            yield version, one


def version_of(interpreter: str) -> str | None:
    """Return ``3.12``; None where it does not start, as a shim of pyenv's may not."""
    asked = subprocess.run([interpreter, "-c", VERSION], capture_output=True, text=True)
    return None if asked.returncode else asked.stdout.strip()


def check_links(wheel: Path, archive: Path) -> None:
    """Check that both hold kernels/ as files: a link would lead nowhere."""
    with tarfile.open(archive) as tar:
        assert not [one.name for one in tar if one.issym() or one.islnk()]
        inside = {name.partition("/")[2] for name in tar.getnames()}
    expected = {
        f"entprop_fast/kernels/{one.name}" for one in (HERE.parents[1] / "kernels").glob("*.py")
    }
    assert expected and expected <= inside
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


def try_under(interpreter: str, wheel: Path, folder: Path) -> str:
    """Return what to say of one Python.

    Raises:
        subprocess.CalledProcessError: the wheel does not do there what it should.
    """
    asked = subprocess.run([interpreter, "-P", "-c", SITE], capture_output=True, text=True)
    if asked.returncode:
        load_alone(interpreter, wheel, folder)
        return "the compiled module loads; the rest is untried, as there is no torch for it"
    site, torch = asked.stdout.split()
    started = time.perf_counter()
    lines = list(use(environment(interpreter, Path(site), wheel, folder), folder))
    return f"works with torch {torch}, in {time.perf_counter() - started:.0f} s: {'; '.join(lines)}"


def load_alone(interpreter: str, wheel: Path, folder: Path) -> None:
    """Load the compiled module with the libraries of the torch that is here."""
    lib = Path(run([sys.executable, "-P", "-c", SITE], folder).split()[0], "torch", "lib")
    with zipfile.ZipFile(wheel) as archive:
        module = archive.extract("entprop_fast/_C.abi3.so", folder)
    libraries = [str(lib / name) for name in ("libc10.so", "libtorch_cpu.so")]
    assert run([interpreter, "-c", LOAD, module, *libraries], folder) == "3.11\n"


def environment(interpreter: str, site: Path, wheel: Path, folder: Path) -> Path:
    """Make an environment with the wheel; return the folder of its commands."""
    run([interpreter, "-m", "venv", str(folder / "env")], folder.parent)
    bin_folder = folder / "env" / "bin"
    python = str(bin_folder / "python")
    run([python, "-m", "pip", "install", "--no-deps", "--no-index", "-q", str(wheel)], folder)
    own = Path(run([python, "-c", PURELIB], folder).strip())
    (own / "torch.pth").write_text(f"{site}\n")
    return bin_folder


def use(bin_folder: Path, folder: Path) -> Iterator[str]:
    """Import, compute, and run the commands, outside the repository."""
    python, entprop = str(bin_folder / "python"), str(bin_folder / "entprop")
    script = str(HERE / "inside.py")
    sets = run([python, "-P", script, str(folder / "env")], folder).split()
    for name in sets:
        run([python, "-P", script, str(folder / "env")], folder, ENTPROP_CPU_KERNELS=name)
    yield f"ops equal the reference with {', '.join(sets)}"
    assert run([entprop, "--help"], folder).startswith("entprop COMMAND")
    assert run([entprop, "--version"], folder).startswith("entprop_fast ")
    report = run([entprop, "env-report"], folder)
    assert str(folder / "env") in report and "_C.abi3.so" in report
    run([entprop, "train", "--out", "run", *TRAIN.split()], folder)
    assert (folder / "run" / "model.safetensors").is_file()
    yield "entprop --help, env-report and train run"


def try_without_a_compiler(archive: Path, folder: Path) -> str:
    """Build the source archive where nothing compiles; return the line that it says."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    built = subprocess.run(
        command, cwd=source, env=clean_environment({"CXX": "false"}), capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.endswith("py3-none-any.whl"), wheel.name
    said = [line for line in built.stderr.splitlines() if line.startswith("entprop-fast:")]
    assert any("without compiled kernels" in line for line in said), built.stderr
    return said[-1].removeprefix("entprop-fast: ")


def run(command: list[str], folder: Path, **variables: str) -> str:
    """Run a command away from this repository and return what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        command, cwd=folder, env=clean_environment(variables), capture_output=True, text=True
    )
    if ran.returncode:
        print(ran.stdout, ran.stderr, sep="\n", file=sys.stderr)
        ran.check_returncode()
    return ran.stdout


def clean_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables without those that would lead back to this repository."""
    kept = {name: one for name, one in os.environ.items() if not name.startswith("PYTHON")}
    return kept | dict(variables)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), *sys.argv[2:]))

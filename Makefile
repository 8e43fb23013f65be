# Every target builds the environment it needs first; rerunning one costs nothing until a pin, the
# package's metadata or csrc/ changes.
#   make test                       in .venv
#   make test VENV=/tmp/x           in another environment
#   make test PYTEST_ARGS=          without parallel workers
#   make wheel-test WHEEL_PYTHONS=/tmp/y/bin/python     that one as well, with the torch it has

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?= -n auto --maxprocesses 4
# Workers take whole files, in the order of conftest.py: what the tests of a file share is made once.
BY_FILE := $(if $(filter -n%,$(PYTEST_ARGS)),--dist loadfile --no-loadscope-reorder)
TRAIN_ARGS ?=
COMPARE_ARGS ?=
WHEEL_PYTHONS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip
# The CPU build of torch brings no Triton; a CUDA build brings the one release that it works with.
TRITON := triton==3.6.0
CSRC := $(shell find csrc -name '*.py' -o -name '*.cpp' -o -name '*.cu' -o -name '*.h' -o -name '*.cuh')

.PHONY: help setup train test test-main test-interpreter test-aot wheel wheel-test compare bench \
    bench-recipes bench-gpu zoo emoji lint docs clean

help:
	@echo "targets: setup train test wheel wheel-test compare bench bench-recipes bench-gpu zoo emoji lint docs clean   (VENV=$(VENV) PYTHON=$(PYTHON))"

setup: $(VENV)/.installed

# Times are those of two cores that do nothing else, without the download.
$(VENV)/.requirements: requirements-dev.txt
	@echo "== setup, 1 of 2: PyTorch and the tools of requirements-dev.txt into $(VENV): about 2 minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --disable-pip-version-check -r requirements-dev.txt
	$(PIP) --quiet show triton >/dev/null 2>&1 || $(PIP) install --disable-pip-version-check $(TRITON)
	touch $@

# requirements-dev.txt holds all that the package needs: pip is to pull nothing more here.
$(VENV)/.installed: $(VENV)/.requirements pyproject.toml setup.py $(CSRC)
	@echo "== setup, 2 of 2: compiling csrc/, installing the package: about 2 minutes, more with nvcc"
	$(PIP) install --disable-pip-version-check --no-build-isolation --no-deps --editable .
	$(BIN)/python -m entprop_fast.env_report
	touch $@

train: setup
	@echo "== training on digits: about 1 minute; set TRAIN_ARGS for anything else"
	$(BIN)/python -m entprop_fast.train $(TRAIN_ARGS)

# One line per pytest process: what a process fixes on import (Triton's interpreter, say) cannot be
# undone within it.
test: test-main test-interpreter test-aot

test-main: setup
	@echo "== tests, in three processes: about 10 minutes"
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(BY_FILE) --ignore=tests/kernels_interpreter \
	    --ignore=tests/kernels_aot tests

test-interpreter: setup
	TRITON_INTERPRET=1 $(BIN)/python -m pytest $(PYTEST_ARGS) tests/kernels_interpreter

test-aot: setup
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/kernels_aot

# A source archive, and the wheel that is built from it.
wheel: setup
	@echo "== source archive and wheel, in dist/: about 2 minutes"
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	ls -l dist

wheel-test: wheel
	@echo "== the wheel in clean environments, a minute for each Python at hand: about 2 minutes"
	$(BIN)/python -m tests.wheel dist $(WHEEL_PYTHONS)

# The documentation's digits tables: 9 rows, 5 seeds; resumes what was interrupted.
compare: setup
	@echo "== 9 methods by 5 seeds on digits: about 4 minutes; finished runs are kept"
	$(BIN)/python -m bench.digits $(COMPARE_ARGS)
	$(BIN)/python -m bench.report

# The tables of ops, steps, corruptions and augmentations, in under 15 minutes on two cores that do
# nothing else.
# The commit is read once: the rows of the first table are a change when the second is measured.
bench: export ENTPROP_GIT ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
bench: setup
	@echo "== benchmarks of ops, steps, corruptions and augmentations: under 15 minutes"
	$(BIN)/python -m pytest bench/ops
	$(BIN)/python -m pytest bench/step
	$(BIN)/python -m pytest bench/corruptions
	$(BIN)/python -m pytest bench/augment
	$(BIN)/python -m bench.report

# How long the recipes take here: every one's own step, and the hours that it means. Under 4 minutes
# on two cores that do nothing else.
bench-recipes: export ENTPROP_GIT ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
bench-recipes: setup
	@echo "== a step of every recipe: under 4 minutes"
	$(BIN)/python -m pytest bench/recipes
	$(BIN)/python -m bench.report

# On a machine with a GPU (docs/how-to/measure_gpu.md). The pages are written anew also where a piece
# failed; the exit status is then the pieces'.
GPU_PARTS ?= all-in-14-minutes
bench-gpu: export ENTPROP_GIT ?= $(shell git describe --always --dirty --abbrev=12 --exclude='*' 2>/dev/null)
bench-gpu: setup
	@echo "== benchmarks on the GPU: 14 minutes at most, 3 minutes at most for each of GPU_PARTS"
	PYTHON=$(BIN)/python bash bench/gpu_campaign.sh $(GPU_PARTS); status=$$?; \
	    if [ $$status -gt 1 ]; then exit $$status; fi; \
	    PYTHON=$(BIN)/python bash bench/gpu_campaign.sh collect; \
	    $(BIN)/python -m bench.report && exit $$status

# The table of networks (docs/reference/support.md); goes on where it was interrupted.
ZOO_ARGS ?=
zoo: setup
	@echo "== 282 networks converted, trained a step and stripped: about 25 minutes"
	$(BIN)/python -m bench.zoo.run $(ZOO_ARGS)
	$(BIN)/python -m bench.report

# The same pictures wherever it runs: npm's packages are locked by version and checksum.
EMOJI_ARGS ?=
emoji: setup
	@echo "== the emoji set into data/: about 1 minute, and 35 MB to fetch"
	$(BIN)/python -m entprop_fast.data emoji $(EMOJI_ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc \( -name '*.cpp' -o -name '*.cu' -o -name '*.h' -o -name '*.cuh' \) -print0 \
	    | xargs -0 $(BIN)/clang-format --dry-run -Werror

# A site that opens from the disk; only here are its tools installed.
docs: setup $(VENV)/.requirements-docs
	@echo "== the documentation as a site: about 1 minute"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "open site/index.html"

$(VENV)/.requirements-docs: requirements-docs.txt $(VENV)/.requirements
	@echo "== the documentation's tools: under 1 minute"
	$(PIP) install --disable-pip-version-check -r requirements-docs.txt
	touch $@

clean:
	rm -rf build dist site *.egg-info entprop_fast/_C*.so
	rm -f $(VENV)/.installed

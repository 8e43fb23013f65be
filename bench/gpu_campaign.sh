#!/usr/bin/env bash
# What to run on a lent GPU, in parts that each end well inside ten minutes.
#
#   bash bench/gpu_campaign.sh build                 compile, report, run the tests marked gpu
#   bash bench/gpu_campaign.sh sanitize              compute-sanitizer: memcheck, racecheck
#   bash bench/gpu_campaign.sh bench-ops             pytest bench/ops, the CUDA cases
#   bash bench/gpu_campaign.sh bench-step            pytest bench/step, every setting (ARCH=wrn28_10: its own)
#   bash bench/gpu_campaign.sh bench-batches         the captured step at 32 to 1024 images (ARCH=resnet18: its own)
#   bash bench/gpu_campaign.sh train                 a run on WRN-28-10, captured and eager, curve beside curve
#   bash bench/gpu_campaign.sh bench-recipes         pytest bench/recipes: hours of every shipped recipe
#   bash bench/gpu_campaign.sh sweep                 the norm under several ways to cut it
#   bash bench/gpu_campaign.sh profile               GPU time of every kernel; ncu's counters
#   bash bench/gpu_campaign.sh bench-ops profile     several, one after another
#
# Each part writes its log, and what it measured, under $OUT (build/gpu_campaign where that is unset)
# as it goes: a part that dies leaves what it had, and the next one starts all the same. The exit
# status is 0 if every part passed, 3 without a CUDA device. A fresh machine is bare: every part builds
# the extension if it is not there, which takes 100 s: `python -m bench.prebuild` makes it elsewhere.
# Nothing is installed; no setting of the GPU is touched.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

PARTS=(build sanitize bench-ops bench-step bench-batches train bench-recipes sweep profile)
PYTHON=${PYTHON:-python3}
OUT=${OUT:-build/gpu_campaign}
export PYTHONUNBUFFERED=1

usage() {
  echo "usage: bash bench/gpu_campaign.sh PART...   parts: ${PARTS[*]}" >&2
  exit 2
}

# limit SECONDS COMMAND...: the command, killed with its children at the limit, which is then said.
limit() {
  local seconds=$1 status
  shift
  echo "+ $*"
  timeout --kill-after=10 "$seconds" "$@"
  status=$?
  if [[ $status -eq 124 || $status -eq 137 ]]; then echo "stopped after ${seconds} s: $*"; fi
  return "$status"
}

has_cuda_device() {
  "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
}

is_built() {
  "$PYTHON" -c '
import sys
from entprop_fast.build import build_info
sys.exit("cuda" not in build_info().backends)' 2>/dev/null
}

# For this GPU alone: a third of the time that all architectures take.
ensure_built() {
  is_built && return
  local arch
  arch=$("$PYTHON" -c 'import torch; print("%d.%d" % torch.cuda.get_device_capability())') || return
  TORCH_CUDA_ARCH_LIST=$arch ENTPROP_BUILD=cuda \
    limit 240 "$PYTHON" setup.py build_ext --inplace && is_built
}

# pytest's workers share the GPU; Triton compiles on the CPU, which is most of the time.
workers() {
  if "$PYTHON" -c 'import xdist' 2>/dev/null; then echo "-n 8"; fi
}

part_build() {
  local status=0 large=tests/gpu/test_gpu_large_tensors.py
  ensure_built || status=1
  limit 60 "$PYTHON" -m entprop_fast.env_report || status=1
  # Not all of tests/: the commands' need packages that such a machine lacks.
  # shellcheck disable=SC2046  # two words, or none
  limit 210 "$PYTHON" -m pytest -m gpu $(workers) --ignore "$large" -q \
    --junitxml "$OUT/tests.xml" tests/gpu tests/ops || status=1
  limit 60 "$PYTHON" -m pytest -q "$large" || status=1
  return "$status"
}

part_sanitize() {
  local status=0 tool
  # Without the allocator's cache a tensor ends where its allocation does.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  local run=(compute-sanitizer --error-exitcode 9 --report-api-errors no --launch-timeout 0)
  command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer on PATH"; return 1; }
  if ! limit 60 "${run[@]}" "$PYTHON" -c 'import torch; torch.ones(8, device="cuda").sum().item()'; then
    echo "compute-sanitizer does not work on this machine (a sum of eight numbers fails under it)"
    return 1
  fi
  ensure_built || status=1
  # Small cases of every kernel: both layouts, odd sizes, tails, several tiles, all dtypes.
  local cases="many-tiles or 33-channels or several-tiles or odd or across-planes or one-pixel"
  cases+=" or 300-1 or 133-26 or 2-classes or 1000 or bad-labels or strided-index or no-rows"
  for tool in memcheck racecheck; do
    limit 225 "${run[@]}" --tool "$tool" --log-file "$OUT/$tool.txt" \
      "$PYTHON" -m pytest -q -p no:cacheprovider -k "$cases" tests/gpu/test_gpu_kernels.py || status=1
    tail -n 5 "$OUT/$tool.txt"
  done
  return "$status"
}

part_bench-ops() {
  local status=0
  ensure_built || status=1
  limit 90 "$PYTHON" -m bench.ops.precompile || status=1
  limit 400 "$PYTHON" -m pytest -q -p no:cacheprovider -k cuda bench/ops || status=1
  keep_rows ops_gpu || status=1
  return "$status"
}

part_bench-step() {
  local status=0
  ensure_built || status=1
  limit 480 "$PYTHON" -m pytest -q -p no:cacheprovider -k "${ARCH:-cuda}" bench/step || status=1
  keep_rows step_cuda || status=1
  return "$status"
}

part_bench-batches() {
  local status=0
  ensure_built || status=1
  # shellcheck disable=SC2086  # no word means every network
  limit 480 "$PYTHON" -m bench.step.batches ${ARCH:-} || status=1
  keep_rows batches_cuda || status=1
  return "$status"
}

# Like bench-recipes it needs tomli_w, which such a machine lacks: a wheel on PYTHONPATH.
part_train() {
  local status=0
  ensure_built || status=1
  limit 240 "$PYTHON" -m bench.captured_run || status=1
  keep_rows captured_run_cuda || status=1
  return "$status"
}

# Needs tyro and what it needs, which such a machine lacks: wheels on PYTHONPATH.
part_bench-recipes() {
  local status=0
  ensure_built || status=1
  limit 240 "$PYTHON" -m pytest -q -p no:cacheprovider bench/recipes || status=1
  cp bench/rows/recipes_cuda.jsonl "$OUT/" || status=1
  return "$status"
}

part_sweep() {
  limit 120 "$PYTHON" -m bench.ops.sweep
  local status=$?
  keep_rows norm_cuda || status=1
  return "$status"
}

# The rows that were measured, also where the limit came first: they are written one by one.
keep_rows() {
  cp "build/rows/$1.jsonl" "$OUT/"
}

part_profile() {
  local status=0
  ensure_built || status=1
  limit 120 "$PYTHON" -m bench.step.profile || status=1
  limit 120 "$PYTHON" -m bench.gpu_profile || status=1
  if ! command -v ncu >/dev/null; then
    echo "no ncu on PATH"
    return "$status"
  fi
  local metrics=gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum
  metrics+=,lts__t_sectors_op_read.sum,launch__registers_per_thread,launch__grid_size
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active
  # The clocks are the machine's: left alone.
  limit 270 ncu --clock-control none --csv --page raw --metrics "$metrics" \
    --kernel-name 'regex:statistics|_normalize|_reduce|_apply|_loss_and|_select_topk|perturb_rows' \
    --log-file "$OUT/ncu.csv" "$PYTHON" -m bench.gpu_profile --once ||
    { echo "ncu does not work on this machine, or was stopped: see ncu.csv"; status=1; }
  return "$status"
}

[[ $# -gt 0 ]] || usage
for part in "$@"; do
  [[ " ${PARTS[*]} " == *" $part "* ]] || usage
done
if ! has_cuda_device; then
  echo "no CUDA device: torch.cuda.is_available() is False ($PYTHON); nothing was run" >&2
  exit 3
fi
mkdir -p "$OUT" || exit 1

failed=()
for part in "$@"; do
  begun=$SECONDS
  (set -o pipefail; "part_$part" 2>&1 | tee "$OUT/$part.log") || failed+=("$part")
  echo "part $part: $((SECONDS - begun)) s" | tee -a "$OUT/$part.log"
done
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "failed: ${failed[*]}"
  exit 1
fi

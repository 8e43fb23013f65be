#!/usr/bin/env bash
# Measure on a GPU, in pieces that each end well under three minutes. How to: docs/how-to/measure_gpu.md
#
#   bash bench/gpu_campaign.sh all-in-14-minutes     the most valuable pieces, in order, within 14 minutes
#   bash bench/gpu_campaign.sh norms memory          these pieces, one after another
#   bash bench/gpu_campaign.sh --dry-run PIECE...    print them with their limits, run nothing
#   bash bench/gpu_campaign.sh collect [FOLDER]      put what was measured among the committed rows
#
# Pieces of all-in-14-minutes, in its order:
#   build                    compile for this GPU where that was not done; print the environment
#   suite                    the tests marked gpu
#   steps-wrn                the step of WRN-28-10: EntProp, pipelined and plain training, eager and captured
#   steps-resnet18           the same of ResNet-18 at 32x32
#   pipelined                both networks in the other layout, EntProp pipelined beside its reference
#   norms                    the norm under several ways to cut it, beside native norms
#   digits                   a run on the digits captured and eager, curve beside curve
#   fashion_mnist            the same on Fashion-MNIST, where the data set is there
#   steps-resnet50           the step of ResNet-50 at 224x224
#   batches                  the captured step at 32 to 1024 images
#   sanitize                 compute-sanitizer: memcheck, then racecheck, of every kernel
#   nccl                     two processes over NCCL, where there are two devices
# The others:
#   steps-wrn-compiled       WRN-28-10 beside torch.compile (max-autotune, CUDA graphs)
#   steps-resnet18-compiled  ResNet-18 likewise
#   steps-more               the other k and n, and WRN-16-4
#   ops                      every op beside torch eager, torch.compile and the best existing part
#   recipes                  a step of every shipped recipe, and the hours that it means
#   fusion                   a step of torchvision's and timm's networks, sums and ReLUs in the norms or not
#   memory                   peak memory of captured and eager runs, with a smaller last batch
#   profile                  GPU time of every kernel of a step
#   counters                 ncu's counters of our kernels
#   large                    tests of tensors beyond 2^31 elements
#   roofline                 the model of a step's time beside the committed rows
#
# Each row is written the moment it is measured, to $OUT/rows.jsonl (OUT: build/gpu_campaign) and, for
# the last command alone, to build/rows: a piece that is cut off leaves what it had, and the next one
# starts all the same. What the commands print is in $OUT/campaign.log. BUDGET=SECONDS limits any list of pieces: one that no
# longer fits is not started, and is named at the end. Time that early pieces leave over goes to the
# later ones. PYTHON is the interpreter, ENTPROP_GIT the commit where there is no .git. Paths are meant
# from where this is called. A signal, Ctrl-C too, ends what runs.
#
# Exit status: 0 if every piece that was started passed or had nothing to do here, 1 if one failed or
# was stopped, 2 for a name that is none, 3 without a CUDA device. Nothing is installed, and no setting
# of the GPU is touched.
set -uo pipefail
SECONDS=0 # an exported one would count
HERE=$PWD
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." || exit 1

# from_here PATH: absolute, as it is meant in the caller's folder.
from_here() { if [[ $1 == /* ]]; then echo "$1"; else echo "$HERE/$1"; fi; }

# NAME:SECONDS that it may take within a budget; the first list's sum is what 14 minutes hold.
BEST=(
  build:100 suite:130 steps-wrn:95 steps-resnet18:75 pipelined:70 norms:40 digits:50
  fashion_mnist:50 steps-resnet50:60 batches:55 sanitize:75 nccl:30
)
OTHERS=(
  steps-wrn-compiled:165 steps-resnet18-compiled:165 steps-more:165 ops:165 recipes:165
  fusion:100 memory:120 profile:120 counters:120 large:60 roofline:60
)
MOST=165 # seconds of a piece where there is no budget, or time to spare
FOURTEEN_MINUTES=840
SPARE=5 # of a budget, for a command that does not end when it is told to

PYTHON=${PYTHON:-python3}
[[ $PYTHON != */* ]] || PYTHON=$(from_here "$PYTHON")
if [[ -n ${OUT:-} ]]; then OUT=$(from_here "$OUT"); else OUT=$PWD/build/gpu_campaign; fi
export PYTHONUNBUFFERED=1

# shellcheck source=bench/gpu_pieces.sh
source bench/gpu_pieces.sh

names() { printf '%s\n' "${@%%:*}"; }

usage() {
  echo "usage: bash bench/gpu_campaign.sh [--dry-run] PIECE... | all-in-14-minutes | collect [FOLDER]" >&2
  echo "pieces: $(names "${BEST[@]}" "${OTHERS[@]}" | paste -sd' ')" >&2
  exit 2
}

# seconds_of PIECE: what it may take within a budget.
seconds_of() {
  local one
  for one in "${BEST[@]}" "${OTHERS[@]}"; do
    if [[ ${one%%:*} == "$1" ]]; then echo "${one##*:}"; return; fi
  done
  return 1
}

# What there is, in three words: devices, compute capability, whether the extension is built.
PROBE='
import importlib.util, sys, torch
if not torch.cuda.is_available():
    sys.exit(3)
from entprop_fast.build import build_info
absent = [name for name in ("tomli_w", "tyro") if importlib.util.find_spec(name) is None]
if absent:
    print("not installed, so that steps and runs fail:", *absent, file=sys.stderr)
capability = "%d.%d" % torch.cuda.get_device_capability()
built = "built" if "cuda" in build_info().backends else "missing"
print(torch.cuda.device_count(), capability, built)
'

lines() { if [[ -f $1 ]]; then wc -l <"$1"; else echo 0; fi; }

# What was measured, of a piece's rows and its output: one line.
told() {
  local log_from=$1 rows_from=$2 counted tests
  counted=$(tail -n "+$((rows_from + 1))" "$ROWS" 2>/dev/null |
    sed -n 's/^{"table": "\([^"]*\)".*/\1/p' | sort | uniq -c | sed 's/^ *\([0-9]*\) /\1 rows of /' |
    paste -sd, | sed 's/,/, /g')
  tests=$(tail -n "+$((log_from + 1))" "$LOG" |
    grep -E '^(=+ )?[0-9]+ (passed|failed|skipped|error|deselected).* in [0-9.]+s' | tr -d = | paste -sd';')
  [[ -z $counted ]] || counted+=" in $ROWS"
  [[ -n $counted ]] || counted="no rows; $LOG"
  echo "${tests:+$tests; }$counted"
}

run_piece() {
  local piece=$1 allowed=$2 begun=$SECONDS status word log_from rows_from skipped
  log_from=$(lines "$LOG") rows_from=$(lines "$ROWS")
  echo "== $piece: at most $allowed s" | tee -a "$LOG"
  (
    DEADLINE=$((SECONDS + allowed))
    trap 'stop; exit 143' TERM
    "piece_$piece"
  ) >>"$LOG" 2>&1 &
  RUNNING=$!
  wait "$RUNNING"
  status=$?
  RUNNING=
  skipped=$(tail -n "+$((log_from + 1))" "$LOG" | grep '^skipped: ' | head -n 1)
  case $status in
    0) word=passed ;;
    124) word="stopped at its limit" ;;
    *) word="failed ($status)" ;;
  esac
  if [[ $status -eq 0 && -n $skipped ]]; then
    word=$skipped
  elif [[ $status -ne 0 ]]; then
    failed+=("$piece")
    tail -n "+$((log_from + 1))" "$LOG" | tail -n 12 | sed 's/^/   | /'
  fi
  echo "$piece: $word; $((SECONDS - begun)) s; $(told "$log_from" "$rows_from")" | tee -a "$LOG"
}

# What runs on the GPU ends with this script, also at Ctrl-C.
trap 'stop; exit 130' INT
trap 'stop; exit 143' TERM HUP

dry_run=
if [[ ${1:-} == --dry-run ]]; then
  dry_run=1
  shift
fi
[[ $# -gt 0 ]] || usage
if [[ $1 == collect ]]; then
  if [[ -n ${2:-} ]]; then OUT=$(from_here "$2"); fi
  exec "$PYTHON" -m bench.collect "$OUT"
fi
pieces=("$@") budget=${BUDGET:-}
if [[ -n $budget && ! $budget =~ ^[1-9][0-9]{0,5}$ ]]; then
  echo "BUDGET=$budget: expected a whole number of seconds" >&2
  usage
fi
if [[ $* == all-in-14-minutes ]]; then
  mapfile -t pieces < <(names "${BEST[@]}")
  budget=${budget:-$FOURTEEN_MINUTES}
fi
needed=0
for piece in "${pieces[@]}"; do
  seconds=$(seconds_of "$piece") || usage
  ((needed += seconds))
  [[ -z $dry_run ]] || printf '%-24s %4d s\n' "$piece" "$seconds"
done
if [[ -n $dry_run ]]; then
  echo "${#pieces[@]} pieces, at most $needed s${budget:+ of $budget s}"
  exit
fi

found=$("$PYTHON" -c "$PROBE")
case $? in
  0) read -r DEVICES CAPABILITY BUILT <<<"$found" ;;
  3)
    echo "no CUDA device: torch.cuda.is_available() is False ($PYTHON); nothing was run" >&2
    exit 3
    ;;
  *)
    echo "no CUDA device that $PYTHON could tell of: see above; nothing was run" >&2
    exit 3
    ;;
esac
mkdir -p -- "$OUT" || exit 1
LOG=$OUT/campaign.log ROWS=$OUT/rows.jsonl
export ENTPROP_ROWS=$ROWS
[[ -e .git || -n ${ENTPROP_GIT:-} ]] || echo "no .git here: rows name no commit unless ENTPROP_GIT does"
if [[ $BUILT != built && " ${pieces[*]} " != *" build "* ]]; then
  pieces=(build "${pieces[@]}")
  ((needed += $(seconds_of build)))
fi

failed=() left_out=()
for piece in "${pieces[@]}"; do
  seconds=$(seconds_of "$piece")
  allowed=$MOST
  if [[ -n $budget ]]; then
    left=$((budget - SPARE - SECONDS))
    if ((seconds > left)); then
      left_out+=("$piece")
      ((needed -= seconds))
      continue
    fi
    # Its own time, and what the earlier ones left over.
    allowed=$((left > needed ? seconds + left - needed : seconds))
    ((allowed <= MOST)) || allowed=$MOST
    ((needed -= seconds))
  fi
  run_piece "$piece" "$allowed"
done
[[ ${#left_out[@]} -eq 0 ]] || echo "left out, as there was no time: ${left_out[*]}"
echo "$SECONDS s; rows: $ROWS; log: $LOG; python -m bench.collect $OUT puts them among the committed"
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "failed: ${failed[*]}"
  exit 1
fi

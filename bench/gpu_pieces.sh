# shellcheck shell=bash
# The pieces of bench/gpu_campaign.sh, which reads this file: `piece_NAME` measures NAME. It has the time
# until DEADLINE, and BUILT, CAPABILITY and DEVICES of the GPU. A piece that has nothing to do on this
# machine prints a line that begins with "skipped: ".

PYTEST=("$PYTHON" -m pytest -q -p no:cacheprovider)
REST=999 # as a command's limit: all that its piece has left

# stop: end what runs in the background, and wait for it.
stop() {
  if [[ -n ${RUNNING:-} ]]; then
    kill -TERM "$RUNNING" 2>/dev/null
    wait "$RUNNING"
  fi
}

# limit SECONDS COMMAND...: the command, killed with its children at its limit or its piece's.
limit() {
  local seconds=$1 left=$((DEADLINE - SECONDS)) status
  shift
  ((seconds <= left)) || seconds=$left
  echo "+ $*"
  if ((seconds < 1)); then
    echo "no time left for: $*"
    return 124
  fi
  timeout --kill-after=5 "$seconds" "$@" &
  RUNNING=$! # `stop` reaches it only there: bash does not heed a signal while it waits otherwise
  wait "$RUNNING"
  status=$?
  RUNNING=
  if [[ $status -eq 124 || $status -eq 137 ]]; then
    echo "stopped after ${seconds} s: $*"
    return 124
  fi
  return "$status"
}

# For this GPU alone: a third of the time that all architectures take.
piece_build() {
  local status=0
  if [[ $BUILT != built ]]; then
    TORCH_CUDA_ARCH_LIST=$CAPABILITY ENTPROP_BUILD=cuda \
      limit "$REST" "$PYTHON" setup.py build_ext --inplace || status=$?
  fi
  limit 60 "$PYTHON" -m entprop_fast.env_report || status=$?
  return "$status"
}

# One file that cannot be imported does not keep the others from running.
piece_suite() {
  local status=0 workers=()
  # Workers share the GPU; Triton compiles on the CPU, which is most of the time.
  if "$PYTHON" -c 'import xdist' 2>/dev/null; then workers=(-n 8); fi
  limit "$REST" "${PYTEST[@]}" -m gpu "${workers[@]}" --continue-on-collection-errors \
    --ignore tests/gpu/test_gpu_large_tensors.py --junitxml "$OUT/tests.xml" tests/gpu tests/ops ||
    status=$?
  limit "$REST" "${PYTEST[@]}" -m gpu tests/lab/data/test_prefetch.py tests/lab/data/test_loader.py \
    tests/lab/corruptions/test_properties.py || status=$?
  return "$status"
}

piece_large() { limit "$REST" "${PYTEST[@]}" tests/gpu/test_gpu_large_tensors.py; }

steps() { limit "$REST" "${PYTEST[@]}" -k "$1" bench/step; }

piece_steps-wrn() { steps "wrn28_10 and k0.2-n1 and not layouts and not compiled"; }
piece_steps-resnet18() { steps "resnet18 and k0.2-n1 and not layouts and not compiled"; }
piece_steps-resnet50() { steps "resnet50 and k0.2-n1"; }
piece_pipelined() { steps "layouts"; }
piece_steps-wrn-compiled() { steps "wrn28_10 and compiled"; }
piece_steps-resnet18-compiled() { steps "resnet18 and compiled"; }
piece_steps-more() { steps "cuda and (wrn16_4 or not k0.2-n1)"; }

piece_batches() { limit "$REST" "$PYTHON" -m bench.step.batches; }

piece_norms() { limit "$REST" "$PYTHON" -m bench.ops.sweep; }

piece_ops() {
  local status=0
  limit 60 "$PYTHON" -m bench.ops.precompile || status=$?
  limit "$REST" "${PYTEST[@]}" -k cuda bench/ops || status=$?
  return "$status"
}

piece_digits() { limit "$REST" "$PYTHON" -m bench.captured_run digits; }
piece_fashion_mnist() { limit "$REST" "$PYTHON" -m bench.captured_run fashion_mnist; }

piece_recipes() { limit "$REST" "${PYTEST[@]}" bench/recipes; }

piece_fusion() { limit "$REST" "${PYTEST[@]}" bench/fusion; }

piece_memory() { limit "$REST" "$PYTHON" -m bench.ragged_memory; }

piece_roofline() { limit "$REST" "$PYTHON" -m bench.roofline; }

piece_nccl() {
  if ((DEVICES < 2)); then
    echo "skipped: one CUDA device, and two processes over NCCL need two"
    return
  fi
  limit "$REST" "${PYTEST[@]}" -m gpu tests/gpu/test_gpu_two_devices.py
}

piece_sanitize() {
  local status=0 tool
  command -v compute-sanitizer >/dev/null || { echo "skipped: no compute-sanitizer on PATH"; return; }
  # Without the allocator's cache a tensor ends where its allocation does.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  local run=(compute-sanitizer --error-exitcode 9 --report-api-errors no --launch-timeout 0)
  if ! limit 40 "${run[@]}" "$PYTHON" -c 'import torch; torch.ones(8, device="cuda").sum().item()'; then
    echo "skipped: compute-sanitizer does not work here (a sum of eight numbers fails under it)"
    return
  fi
  # Small cases of every kernel: both layouts, odd sizes, tails, several tiles, all dtypes.
  local cases="many-tiles or 33-channels or several-tiles or odd or across-planes or one-pixel"
  cases+=" or 300-1 or 133-26 or 2-classes or 1000 or bad-labels or strided-index or no-rows"
  for tool in memcheck racecheck; do
    limit "$REST" "${run[@]}" --tool "$tool" --log-file "$OUT/$tool.txt" \
      "${PYTEST[@]}" -k "$cases" tests/gpu/test_gpu_kernels.py || status=$?
    [[ ! -f $OUT/$tool.txt ]] || tail -n 5 "$OUT/$tool.txt"
  done
  return "$status"
}

piece_profile() {
  local status=0
  limit 90 "$PYTHON" -m bench.step.profile || status=$?
  limit "$REST" "$PYTHON" -m bench.gpu_profile || status=$?
  return "$status"
}

# The clocks are the machine's: left alone.
piece_counters() {
  command -v ncu >/dev/null || { echo "skipped: no ncu on PATH"; return; }
  local metrics=gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum
  metrics+=,lts__t_sectors_op_read.sum,launch__registers_per_thread,launch__grid_size
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active
  limit "$REST" ncu --clock-control none --csv --page raw --metrics "$metrics" \
    --kernel-name 'regex:statistics|_normalize|_reduce|_apply|_loss_and|_select_topk|perturb_rows' \
    --log-file "$OUT/ncu.csv" "$PYTHON" -m bench.gpu_profile --once
}

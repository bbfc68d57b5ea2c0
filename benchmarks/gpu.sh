#!/usr/bin/env bash
# From the folder that `make gpu-bundle` makes, on a machine with an NVIDIA GPU, torch, nvcc and cmake, but no network:
# installs ringtune, builds Horovod for this GPU, proves NCCL, runs the GPU tests, then measures.
#
#   gpu.sh [--dry-run] OUTPUT_FOLDER [STAGE...]
#
# Stages: install build test measure. Each ends within LIMIT_S seconds (540), and the same command goes on where the last
# one ended; results are JSON files in OUTPUT_FOLDER/results. --dry-run does everything but what only a GPU can do.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dry_run=false
if [ "${1:-}" = --dry-run ]; then dry_run=true; shift; fi
out=${1:?the folder for environment and results is missing: gpu.sh [--dry-run] OUTPUT_FOLDER [STAGE...]}
shift
stages=("${@:-}")
[ -n "${stages[0]}" ] || stages=(install build test measure)
mkdir -p "$out/results" "$out/log"
out=$(cd "$out" && pwd)
python="$out/venv/bin/python"
# The machine's, found before the PATH begins with this one's.
PYTHON=$(command -v "${PYTHON:-python3}") || { echo "gpu.sh: there is no ${PYTHON:-python3}; set PYTHON" >&2; exit 2; }
export PATH="$out/venv/bin:$PATH" RINGTUNE_CACHE="$out/cache" HF_HUB_OFFLINE=1
# No index: what is not in the folder is not needed, or is named as missing.
export PIP_NO_INDEX=1 PIP_FIND_LINKS="$here/horovod" PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe

stage_install() {
  "$PYTHON" -m venv --clear --system-site-packages "$out/venv"
  # Of a machine whose Python is itself a virtual environment, that one's packages; venv gives those of its base only.
  "$PYTHON" -c 'import sys, sysconfig
if sys.prefix != sys.base_prefix:
    print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
    > "$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/machine.pth"
  # Without their dependencies: those that are not in the folder, the machine has.
  "$python" -m pip install --quiet --no-deps "$here"/wheels/*.whl
  "$python" -m pip install --quiet --no-deps --no-build-isolation "$here/sources"
}

stage_build() {
  # In a dry run for the GPUs of today's servers; else for the one that is here.
  local words=()
  if $dry_run && "$python" -c 'import sys, torch; sys.exit(torch.version.cuda is None)'; then
    words=(--cuda-arch "${CUDA_ARCH:-90}")
  fi
  "$python" -m ringtune.launch.cli horovod "${words[@]}"
}

stage_test() {
  (cd "$here/sources" && "$python" -m pytest -p no:cacheprovider -q -rs --basetemp "$out/tests" tests/gpu)
}

stage_measure() {
  local words=()
  if $dry_run; then words=(--dry-run); fi
  "$python" "$here/sources/benchmarks/gpu.py" "$out/results" --seconds "$((LIMIT_S - 60))" "${words[@]}"
}

LIMIT_S=${LIMIT_S:-540}
export -f stage_install stage_build stage_test stage_measure
export here out python dry_run LIMIT_S PYTHON
for stage in "${stages[@]}"; do
  if [ -e "$out/$stage.done" ]; then echo "$stage: done already"; continue; fi
  echo "$stage: log in $out/log/$stage.log"
  started=$SECONDS
  status=0
  timeout --kill-after 10 "$LIMIT_S" bash -ec "stage_$stage" > >(tee "$out/log/$stage.log") 2>&1 || status=$?
  printf '{"stage": "%s", "exit_code": %d, "seconds": %d}\n' "$stage" "$status" "$((SECONDS - started))" \
    > "$out/results/stage-$stage.json"
  case $status in
    0) touch "$out/$stage.done" ;;
    75) echo "$stage: not finished; the same command goes on"; exit 75 ;;
    124) echo "$stage: stopped after $LIMIT_S s; the same command goes on"; exit 75 ;;
    *) echo "$stage: failed with exit code $status"; exit "$status" ;;
  esac
done
echo "all done: $out/results"

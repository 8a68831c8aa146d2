#!/usr/bin/env bash
# All that only a GPU can show, in under nine minutes and with nothing but this folder: one kernel, the tests, NVIDIA's
# sanitizer, the loss beside NumPy's, kernels, steps and training beside PyTorch's. A part that fails stops no other.
# Usage: benchmarks/gpu.sh [FOLDER]    FOLDER takes figures and log (default: $OUT, or runs/gpu)
#        PYTHON=…                      the Python to use (default python3)
# Where a package index is out of reach, benchmarks/gpu_site.sh packs what is needed, before and elsewhere.
set -u
cd "$(dirname "$0")/.." || exit 1
out=$(realpath -m "${1:-${OUT:-runs/gpu}}") python=${PYTHON:-python3} all=525
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/home"

if [ -e .nb/site.tar.xz ]; then
  mkdir "$work/site" && "$python" -m tarfile --filter data -e .nb/site.tar.xz "$work/site"
  PYTHONPATH=$work/site:${PYTHONPATH:-}
fi
export PYTHONPATH=$PWD:$PWD/benchmarks:${PYTHONPATH:-} TINYVAE_CACHE=$work/cache PYTHONUTF8=1
eval "$("$python" -m tinyvae.device.toolkit "$work/home" 2> >(tee "$work/toolkit.log" >&2))"

part() { # part NAME SECONDS COMMAND…: runs it within so many seconds, or what is left; its output goes to a log of its own
  local name=$1 limit=$2 start=$SECONDS status left=$((all - SECONDS))
  [ "$left" -lt "$limit" ] && limit=$((left > 0 ? left : 1))
  shift 2
  timeout -k 10 "$limit" "$@" >"$work/$name.log" 2>&1
  status=$?
  echo "$name $status $((SECONDS - start))" >>"$work/parts"
  echo "== $name: status $status after $((SECONDS - start)) of $limit s"
}

figure() { # figure NAME: what the log of a part comes to, in a line
  local log=$work/$1.log
  case $1 in
    tests) for word in passed failed error skipped; do
      grep -Eo "[0-9]+ $word" "$log" | awk -v w=$word '{n += $1} END {if (n) printf "%d %s  ", n, w}'
    done ;;
    numba) grep -E '^(GPU|cuda) ' "$log" | head -1 | tr -s ' ' ;;
    *check) grep -E 'SUMMARY' "$log" | tail -1 | tr -d '=' ;;
    kernels | steps | training) echo "$(grep -c '  ok$' "$log") bars reached, $(grep -c '  MISSED$' "$log") missed" ;;
    *) tail -1 "$log" ;;
  esac
}

one_kernel="from tinyvae.kernels.check import verify_op; verify_op('dense', 'cuda', 'float32'); print('dense: right')"
part numba 25 bash -c "'$python' -m numba -s | sed -n '/__CUDA Information__/,/^\$/p'; '$python' -m tinyvae info"
part kernel 40 "$python" -c "$one_kernel"
cat "$work/numba.log" "$work/kernel.log"

# what is not timed runs at the same time: a Python for each file of tests, NVIDIA's four tools, the losses
pytest="'$python' -m pytest -p no:cacheprovider -k 'cuda and not simulator' \"\$1\"; s=\$?; [ \$s = 5 ] || exit \$s"
export pytest
part tests 160 bash -c 'grep -lwE "device|cuda" -r --include="test_*.py" tests | xargs -P 6 -I{} bash -c "$pytest" - {}' &
part curves 160 "$python" -m peers.curves cuda "$out/curves.json" &
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
for tool in memcheck racecheck initcheck synccheck; do
  if [ -z "$sanitizer" ]; then echo "$tool not-run 0" >>"$work/parts" && echo "no SUMMARY: not found" >"$work/$tool.log"
  else part $tool 160 "$sanitizer" --tool $tool --report-api-errors no --error-exitcode 9 --print-limit 20 \
    "$python" -m peers.sanitize & fi
done
wait

bench() { part "$1" "$2" "$python" -m tinyvae bench --device cuda --only "$3" --json "$out/$1.json"; }
bench kernels 190 memory,products,convs
bench steps 130 steps
bench training 60 training

for name in toolkit $(cut -d' ' -f1 "$work/parts"); do echo "==== $name" && cat "$work/$name.log"; done >"$out/log.txt"
for name in tests memcheck racecheck initcheck synccheck curves; do
  grep -qE "^$name (0|not-run) " "$work/parts" || { echo "==== $name" && tail -25 "$work/$name.log"; }
done
for name in kernels steps training; do sed -n '/^bars/,$p' "$work/$name.log" | grep -v 'not measured'; done
echo "part        status  seconds"
rows=()
while read -r name status seconds; do
  printf '%-12s%-8s%-9s%s\n' "$name" "$status" "$seconds" "$(figure "$name")"
  rows+=("{\"part\": \"$name\", \"status\": \"$status\", \"seconds\": $seconds, \"figure\": \"$(figure "$name" | tr -d '"\\')\"}")
done <"$work/parts"
(IFS=, && echo "[${rows[*]}]") >"$out/parts.json"
echo "$SECONDS s in all; figures and log in $out"
! grep -qvE '^[a-z]+ (0|not-run) ' "$work/parts"

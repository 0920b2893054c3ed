#!/bin/sh
# benchmarks/gpu.sh OUT
#
# Ten minutes on a GPU that nobody has tried: builds the CUDA operators, checks them against their
# references, measures, and leaves logs and figures in the folder OUT. What tells most comes first,
# and whatever fails, the rest goes on. summary.txt has a line for every step. PYTHON names the
# interpreter (default: .venv/bin/python, else python3), MINUTES bounds the whole (default: 10).
#
# Exit status: 0 if every step succeeded, 1 if one failed, 2 if something is missing without which
# there is nothing to do.

set -u
if [ $# -ne 1 ]; then
    echo "usage: benchmarks/gpu.sh OUT (a folder for logs and figures)" >&2
    exit 2
fi
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-.venv/bin/python}
[ -n "${PYTHON:-}" ] || [ -x "$python" ] || python=python3
end=$(($(date +%s) + 60 * ${MINUTES:-10}))
failed=0
: > "$out/summary.txt"

say() {
    echo "$1" | tee -a "$out/summary.txt"
}

# step NAME SECONDS WHAT COMMAND...: runs a command with a limit; its output goes to OUT/NAME.log.
step() {
    name=$1 limit=$2 what=$3
    shift 3
    left=$((end - $(date +%s)))
    [ "$limit" -lt "$left" ] || limit=$left
    if [ "$limit" -le 0 ]; then
        say "left out    $name: $what (no time left: MINUTES=20 gives more)"
        failed=1
        return
    fi
    begun=$(date +%s)
    timeout -k 5 "$limit" "$@" > "$out/$name.log" 2>&1
    status=$?
    seconds=$(($(date +%s) - begun))
    case $status in
        0) say "ok          $name: $what, $seconds s" ;;
        124 | 137) say "stopped     $name: $what, after $limit s" ;;
        *) say "failed ($status)  $name: $what, $seconds s: $(grep -v '^ *$' "$out/$name.log" | tail -n 1)" ;;
    esac
    [ $status -eq 0 ] || failed=1
}

# What is there at all.
if ! missing=$("$python" -c '
import torch
from clcae.ops import kernels

reason = kernels._hindrance()
print(reason or "")
' 2> "$out/machine.log"); then
    say "missing: $python cannot import the library: $(tail -n 1 "$out/machine.log") (make install)"
    exit 2
fi
if [ -n "$missing" ]; then
    say "missing: $missing; everything here needs a GPU, a torch with CUDA, and CLCAE_KERNELS unset"
    exit 2
fi
nvidia-smi > "$out/nvidia-smi.log" 2>&1

step build 240 "the CUDA operators are built" "$python" -c '
import sys
from clcae.ops import kernels

status = kernels.status()
print(status.reason)
sys.exit(not status.usable)
'
step operators 180 "operators forward, backward and twice backward against their references" \
    "$python" -m pytest -m gpu tests/clcae/ops/test_gpu.py --junitxml "$out/operators.xml"
step precision 90 "bfloat16 and float16 against float32" \
    "$python" -m pytest -m gpu tests/clcae/stylegan2 tests/clcae/methods
step generator 120 "speed of synthesis" "$python" scripts/benchmark.py --device cuda \
    --only precision,generator --limit 5 --json "$out/generator.json"
step doctor 60 "what this installation has" "$python" scripts/doctor.py
step tests 180 "all tests that need a GPU" "$python" -m pytest -m gpu --junitxml "$out/tests.xml"
step benchmark 300 "speed of everything else" "$python" scripts/benchmark.py --device cuda \
    --limit 5 --json "$out/benchmark.json"
say "logs and figures are in $out"
exit $failed

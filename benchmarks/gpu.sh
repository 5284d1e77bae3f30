#!/usr/bin/env bash
# Measures on one GPU what a CPU cannot show, within a time budget, most important first:
#   1. the tests marked gpu                                   -> OUT/tests.txt
#   2. the training step of Wide-ResNet-28-10 at 32 px, ResNet-50 at 224 px, and a small network with and without
#      compilation and CUDA graphs                            -> OUT/step-*.json
#   3. Table 1 at scale gpu, as many cells as fit, several at once -> OUT/table1.tar.gz (metrics and recipes, no weights)
#
# Without part 3, OUT/all.tar.gz holds all of 1 and 2.
#
# usage: benchmarks/gpu.sh SECONDS OUT [PART...]        PART: tests, steps, table1 (default: all)
#   KDAUG_DATA  folder with CIFAR-100 (needed for 3)
#   DEVICE      cuda (default), or cpu to try the script at a small size without a GPU
#   JOBS        runs at once in 3 (default 6)
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,/^set/p' "$0" | grep '^#' | cut -c3-; exit 2; }
budget=$1 out=$2; shift 2; parts=${*:-tests steps table1}
device=${DEVICE:-cuda} jobs=${JOBS:-6}
start=$(date +%s)
mkdir -p "$out"
python=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)
export PYTHONUNBUFFERED=1

left() { echo $((budget - $(date +%s) + start)); }

# within SECONDS COMMAND...: runs the command, and stops it as Ctrl-C does once that time or the budget is over
within() {
    local seconds=$1; shift
    [ "$(left)" -lt "$seconds" ] && seconds=$(left)
    if [ "$seconds" -le 5 ]; then echo "no time left for: $*"; return; fi
    timeout -s INT -k 20 "$seconds" "$@"
    local code=$?
    [ $code -eq 124 ] && echo "stopped after $seconds s: $*"
    return $code
}

step() { # step NAME SECONDS FLAGS...: a step benchmark into OUT/step-NAME.json
    local name=$1 seconds=$2; shift 2
    echo "== step: $name (left: $(left) s)"
    within "$seconds" "$python" benchmarks/training_step.py --device "$device" --json "$out/step-$name.json" "$@" \
        >"$out/step-$name.md" 2>"$out/step-$name.log" && grep '^|' "$out/step-$name.md" || tail -3 "$out/step-$name.log"
}

if [ "$device" = cuda ]; then
    marker=gpu compile_limit=60 small="--network wide_resnet16_4 --rounds 3 --steps 60" scale=gpu
    large="--rounds 3 --steps 40" photos="--network resnet50 --image-size 224 --rounds 3 --steps 20"
else
    marker="not gpu" compile_limit=240 small="--network wide_resnet10_1 --batch 8 --rounds 1 --steps 1" scale=smoke
    large=$small photos="--network resnet18 --image-size 64 --batch 4 --rounds 1 --steps 1"
fi

wanted() { [[ " $parts " == *" $1 "* ]]; }

if wanted tests; then
    echo "== tests marked $marker"
    within 150 "$python" -m pytest -q -m "$marker" tests/gpu >"$out/tests.txt" 2>&1
    tail -15 "$out/tests.txt"
fi

if wanted steps; then
    step wide-resnet28-10 60 $large
    step small-eager 40 $small
    step small-compiled $compile_limit $small --compile
    [ "$device" = cuda ] && step small-cuda-graphs 60 $small --cuda-graphs
    step photos 60 $photos
fi

if ! wanted table1; then
    tar -C "$out" -czf "$out/all.tar.gz" $(cd "$out" && find . -maxdepth 1 -type f ! -name '*.tar.gz')
    exit
fi
echo "== table 1 (left: $(left) s)"
cells=(); for m in 1 5 0 3 7 2 4 6; do cells+=("cifar100-table1-m$m" "cifar100-table1-m$m-kd"); done
if [ "$device" = cpu ]; then cells=(cifar100-table1-m0); fi
for seed in 0 1; do
    within "$(($(left) - 20))" "$python" -m kdaug reproduce table1 --scale $scale --root "${KDAUG_DATA:-data}" \
        --device "$device" --dir "$out/runs" --seeds $(seq 0 $seed) --jobs "$jobs" --only "${cells[@]}" \
        >>"$out/table1.log" 2>&1
done
tail -40 "$out/table1.log"
if [ -d "$out/runs" ]; then
    tar -C "$out" --exclude='*.safetensors' --exclude=checkpoints --exclude='events.*' --exclude=labels \
        -czf "$out/table1.tar.gz" runs && rm -rf "$out/runs"
fi
echo "== done after $((budget - $(left))) s"

#!/bin/sh
# Everything that wants a GPU, in one run of less than ten minutes: the CUDA tests, CUDA graphs against
# plain sweeps, images per second in float32, TF32 and bfloat16, channels-last and not, and then
# training on CIFAR-10 for as many epochs as end in time.
#
#   sh examples/paper/gpu.sh [DATA] [--device cpu]
#
# DATA: CIFAR-10 as packed JPEG images (ep_neuro/data/packed_images.py), carry/cifar10-jpeg.npz by default.
# --device cpu: every stage on small networks and without a GPU, to try the script out.
#
# Results are lines of $RUN/results.jsonl as soon as they are there, with a log of each stage beside it;
# if OUT is set, copies go there, but not the checkpoints. A second call goes on where the first stopped.
#
#   BUDGET=540             seconds for everything
#   RUN=runs/gpu           folder of results and checkpoints
#   PYTHON=python3         holds torch for CUDA
#   WHEELS=carry/wheels    where missing packages are installed from; no registry is asked
#
# Needed: hypothesis jinja2 matplotlib numpy pillow pydantic pytest pytest-timeout pyyaml safetensors
# torch. For a machine without a registry, collect what it lacks beforehand, with the versions of
# constraints.txt, since pydantic and pydantic-core belong together; for Python 3.12 on Linux:
#
#   pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
#       --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -c constraints.txt \
#       -d carry/wheels pydantic pydantic-core annotated-types typing-inspection pyyaml
set -u

cd "$(dirname "$0")/../.." || exit 2
say() { printf 'gpu: %s\n' "$1" >&2; }
give_up() {
    say "$1"
    exit 2
}

data=carry/cifar10-jpeg.npz device=cuda
while [ $# -gt 0 ]; do
    case $1 in
    --device) device=${2:-} && shift ;;
    -*) give_up "option '$1' is unknown; sh examples/paper/gpu.sh [DATA] [--device cpu]" ;;
    *) data=$1 ;;
    esac
    shift
done
case $device in cpu | cuda) ;; *) give_up "--device '$device' is neither cuda nor cpu" ;; esac
run=${RUN:-runs/gpu} python=${PYTHON:-python3} wheels=${WHEELS:-carry/wheels}
end=$(($(date +%s) + ${BUDGET:-540}))
[ -f "$data" ] || give_up "data '$data' is not there; give the packed CIFAR-10 as the first argument"
mkdir -p "$run" || exit 2
export PYTHONPATH="$PWD:$run/site${PYTHONPATH:+:$PYTHONPATH}"

missing() {
    "$python" -c 'import importlib.util as u; print(*(n for n in ("hypothesis", "jinja2", "matplotlib",
"numpy", "PIL", "pydantic", "pytest", "pytest_timeout", "yaml", "safetensors", "torch")
if not u.find_spec(n)))' || echo "a Python named $python"
}
if [ -n "$(missing)" ] && [ -d "$wheels" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --target "$run/site" "$wheels"/*.whl
fi
absent=$(missing)
[ -z "$absent" ] || give_up "$absent: missing, and not in $wheels; collect wheels as the head of this script says"
if [ "$device" = cuda ] &&
    ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    give_up "torch sees no CUDA GPU; run on a machine that has one, or try out with --device cpu"
fi

bring() {
    [ -n "${OUT:-}" ] || return 0
    mkdir -p "$OUT"
    for file in "$run"/*.jsonl "$run"/*.log "$run"/train/config.yaml "$run"/train/metrics.jsonl; do
        [ ! -f "$file" ] || cp "$file" "$OUT"
    done
}
trap bring EXIT

# stage NAME LIMIT COMMAND...: run it for LIMIT seconds at most, and no longer than there is time.
failed=0
stage() {
    name=$1 limit=$2 left=$((end - $(date +%s)))
    shift 2
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -le 0 ]; then
        say "$name: no time is left; call again to go on"
        return 124
    fi
    say "$name: at most $limit s"
    timeout -k 10 "$limit" "$@" >>"$run/$name.log" 2>&1
    code=$?
    tail -n 3 "$run/$name.log"
    case $code in
    0) ;;
    124 | 137) say "$name: cut off after $limit s; call again to go on" ;;
    *) failed=1 && say "$name: failed with $code; see $run/$name.log" ;;
    esac
    bring
    return $code
}
has() { grep -q "^{\"stage\": \"$1\"" "$run/results.jsonl" 2>/dev/null; }

if ! has tests; then
    stage tests 120 "$python" -m pytest -q -p no:cacheprovider tests/unit/training/test_cuda.py tests/unit/network/test_cuda_graphs.py
    code=$?
    [ $code -ge 124 ] || printf '{"stage": "tests", "code": %d, "said": "%s"}\n' \
        $code "$(tail -n 1 "$run/tests.log" | tr -d '"\\')" >>"$run/results.jsonl"
fi
has measured || stage bench 210 "$python" examples/paper/gpu_bench.py \
    --out "$run" --device "$device" --until $(($(date +%s) + 190))
has train || stage train 3600 "$python" examples/paper/gpu_train.py "$data" \
    --out "$run" --device "$device" --until "$end"
exit $failed

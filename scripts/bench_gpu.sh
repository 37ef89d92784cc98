#!/usr/bin/env bash
# The whole table of one GPU, in under 9 minutes, on synthetic films, without a network.
#   bash scripts/bench_gpu.sh [OUT [PART...]]    results in OUT (default bench_gpu); the table is OUT/table.md; PART: these alone
#   bash scripts/bench_gpu.sh --dry-run [OUT [PART...]]   the same parts on the CPU at tiny sizes, in a few minutes: does everything run?
#
# Needs Python 3.11, torch with CUDA, and what this package imports: numpy, omegaconf, pyyaml, safetensors, pyarrow,
# opencv-python-headless, pillow, rich. Where they are missing:
#   python3 -m pip install 'omegaconf>=2.4' pyyaml safetensors pyarrow opencv-python-headless pillow rich      (xformers, to measure it too)
# pydicom, SimpleITK, scipy, pebble, jinja2 and submitit are not needed. PYTHON=/path/to/python uses another interpreter.
#
# Every part has a limit of its own. One that fails or is too slow becomes a row that says so; its log is OUT/PART.log,
# its numbers are OUT/PART.json, and all other parts run.
set -uo pipefail

DRY=""
if [ "${1:-}" = "--dry-run" ]; then
    DRY=1
    shift
fi
case "${1:-}" in
-*)
    echo "bench_gpu.sh: unknown option $1. Usage: bash scripts/bench_gpu.sh [--dry-run] [OUT [PART...]]" >&2
    exit 2
    ;;
esac
OUT="$(realpath -m -- "${1:-bench_gpu}")"
PARTS=(kernels step memory small large attention loader feed)
WANTED=("${@:2}")
for name in "${WANTED[@]}"; do
    if [[ " ${PARTS[*]} " != *" $name "* ]]; then
        echo "bench_gpu.sh: there is no part $name; expected some of: ${PARTS[*]}" >&2
        exit 2
    fi
done
if [ ${#WANTED[@]} -eq 0 ]; then WANTED=("${PARTS[@]}"); fi
PYTHON="${PYTHON:-python3}"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! "$PYTHON" -c "import torch, omegaconf, pyarrow, cv2, PIL, rich, safetensors"; then
    echo "bench_gpu.sh: $PYTHON lacks a library; the head of this script says which are needed." >&2
    exit 2
fi
if [ -z "$DRY" ] && ! "$PYTHON" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "bench_gpu.sh: torch finds no GPU here. To try the script on the CPU: bash scripts/bench_gpu.sh --dry-run" >&2
    exit 2
fi
mkdir -p "$OUT"
rm -f -- "$OUT"/*.json "$OUT"/*.status "$OUT"/*.log "$OUT/table.md"

# part NAME LIMIT SUBJECT WORDS...: one measurement, at most LIMIT seconds of it
part() {
    local name="$1" limit=$(($2 * PATIENCE)) code=0 begun=$SECONDS
    shift 2
    if [[ " ${WANTED[*]} " != *" $name "* ]]; then return; fi
    echo "== $name (at most $limit s): dinov2 bench $*"
    timeout --kill-after=5 "$limit" "$PYTHON" -m dinov2 bench "$@" --json "$OUT/$name.json" >"$OUT/$name.log" 2>&1 || code=$?
    echo "$code $((SECONDS - begun)) $limit" >"$OUT/$name.status"
    if [ "$code" -eq 0 ]; then echo "   done in $((SECONDS - begun)) s"; else echo "   failed with exit code $code after $((SECONDS - begun)) s; see $OUT/$name.log"; fi
}

SIZES=(--preset raddino)
SMALL=(--preset raddino --arch vit_small)
LARGE=(--preset raddino --arch vit_large)
PATIENCE=1 STEPS=10 SECONDS_EACH=0.3 CEILING=0.3 BATCHES=(40) FITS=() FORMATS=(fp16 bf16) COMPILE=(always never) AUTO=(auto) AGAIN=(pointwise full) LOADER=(--parts pipelines workers --rounds 2 --worker-rounds 1)
FEED=(--steps 40 --warm-up 10)
if [ -n "$DRY" ]; then
    TINY=(--device cpu --batch-size 2 --global-size 28 --local-size 14 --local-crops 1 --prototypes 32)
    SIZES=("${TINY[@]}") SMALL=("${TINY[@]}") LARGE=("${TINY[@]}" --global-size 42)
    PATIENCE=4 STEPS=1 SECONDS_EACH=0.001 CEILING=0.05 BATCHES=(2 3) FITS=(--limit-gib 0.5) FORMATS=(bf16) COMPILE=(never) AUTO=(never) AGAIN=(pointwise)
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a thread, so that other work on the machine does not stall it
    LOADER=(--parts pipelines --rounds 1 --batch-size 2 --global-size 28 --local-size 14 --local-number 1)
    FEED=(--steps 4 --warm-up 2 --workers 1)
fi
export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$OUT/compiled}" # what one part compiles serves the next
QUICK=(--no-memory --steps "$STEPS" --ceiling-seconds "$CEILING")
PLAIN=("${QUICK[@]}" --against plain)

part kernels 50 kernels "${SIZES[@]}" --precision bf16 --seconds "$SECONDS_EACH" --ceiling-seconds "$CEILING"
part step 120 step "${SIZES[@]}" "${PLAIN[@]}" --precision "${FORMATS[@]}" --compile "${COMPILE[@]}" --profile "$OUT/step.png"
part memory 110 memory "${SIZES[@]}" --precision bf16 --compile "${AUTO[@]}" --batch-sizes "${BATCHES[@]}" "${FITS[@]}" --checkpointing "${AGAIN[@]}" --against plain --largest
part small 40 step "${SMALL[@]}" "${PLAIN[@]}" --precision bf16 --compile "${AUTO[@]}"
part large 60 step "${LARGE[@]}" "${PLAIN[@]}" --precision bf16 --compile "${AUTO[@]}"
part attention 50 step "${SIZES[@]}" "${QUICK[@]}" --precision bf16 --compile never --attention sdpa explicit xformers varlen
part loader 35 loader "${LOADER[@]}"
part feed 70 feed "${SIZES[@]}" "${FEED[@]}" --precision bf16 --compile "${AUTO[@]}"
exec "$PYTHON" -m dinov2 bench table "$OUT"

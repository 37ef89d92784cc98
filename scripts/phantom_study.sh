#!/usr/bin/env bash
# Does a short pretraining help? Synthetic films, a tiny network before and after some hundred steps, the same probes on both.
#   bash scripts/phantom_study.sh OUT [SEED...]         seeds of the networks (default: 0 1 2)
# Ends with a table: test AUROC of the planted findings, for every seed before and after, beside pixels and metadata.
set -euo pipefail
if [ $# -lt 1 ]; then
    sed -n '3,4s/^# *//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
OUT="$(realpath -m -- "$1")"
SEEDS=("${@:2}")
if [ ${#SEEDS[@]} = 0 ]; then SEEDS=(0 1 2); fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
set_up_environment
FINDINGS=(label_nodule label_effusion label_cardiomegaly)
FILMS="$OUT/pictures/split.parquet"

[ -f "$OUT/phantoms/labels.csv" ] || dinov2 phantom --output "$OUT/phantoms" --count 2000 --seed 1 --short-side 160
[ -f "$OUT/pictures/manifest.parquet" ] ||
    dinov2 preprocess --input "$OUT/phantoms/dicom" --output "$OUT/pictures" --table "$OUT/phantoms/labels.csv" resample.short_side=128
[ -f "$FILMS" ] || dinov2 manifest split "$OUT/pictures/manifest.parquet" --output "$FILMS" --val 0.15 --test 0.25 --seed 0

judge() { # RUN, words beside
    for probe in knn linear; do
        [ -f "$1/$probe/result.json" ] ||
            dinov2 eval "$probe" --backbone "$1" --dataset "$FILMS" --labels "${FINDINGS[@]}" --size 64 --fit squash \
                --features-dir "$1/features" --output-dir "$1/$probe" "${@:2}"
    done
}

for seed in "${SEEDS[@]}"; do
    before="$OUT/before$seed" after="$OUT/after$seed"
    settings=("train.dataset_path=$FILMS" "train.seed=$seed")
    # One step that moves nothing: the weights that the training starts from.
    dinov2 train --config-file phantom_probe --output-dir "$before" "${settings[@]}" \
        optim.total_steps=1 optim.warmup_steps=0 optim.base_lr=1e-12
    dinov2 train --config-file phantom_probe --output-dir "$after" "${settings[@]}"
    judge "$before" --beside pixels metadata
    judge "$after"
done
for probe in knn linear; do
    echo "== $probe"
    dinov2 eval compare "$OUT"/before*/"$probe" "$OUT"/after*/"$probe"
done

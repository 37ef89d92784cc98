#!/usr/bin/env bash
# One table of probes for several backbones: findings, view, sex, and lungs where masks are there.
#   bash scripts/probe_table.sh CXR OUT SIZE BACKBONE...
# CXR holds nih64.csv, hannover.csv and lungs.csv with their films; SIZE is the side of the pictures in pixels. A backbone is anything
# that --backbone takes. The results are folders OUT/DATA-PROBE/NUMBER (the first backbone is 1), then a table each, beside pixels and metadata.
set -euo pipefail
if [ $# -lt 4 ]; then
    sed -n '2,5s/^# *//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
CXR="$(realpath -- "$1")" OUT="$(realpath -m -- "$2")" SIZE="$3"
shift 3
BACKBONES=()
for backbone in "$@"; do
    if [ -e "$backbone" ]; then backbone="$(realpath -- "$backbone")"; fi
    BACKBONES+=("$backbone")
done
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
set_up_environment
FINDINGS=(Atelectasis Cardiomegaly Consolidation Edema Effusion Emphysema Fibrosis Infiltration Mass "No Finding" Nodule Pleural_Thickening Pneumonia Pneumothorax)

probe() { # DATA-PROBE NUMBER, words of the probe
    local folder="$OUT/$1/$2"
    [ -f "$folder/result.json" ] || dinov2 eval "${@:3}" --output-dir "$folder"
}

judge() { # DATA PROBE CSV, words that name labels
    local number=1 data="$1" kind="$2" table="$3"
    shift 3
    for backbone in "${BACKBONES[@]}"; do
        local beside=()
        if [ "$number" = 1 ]; then beside=(--beside pixels metadata); fi
        probe "$data-$kind" "$number" "$kind" --backbone "$backbone" --size "$SIZE" --fit squash --dataset "$CXR/$table" \
            --features-dir "$OUT/features" "${beside[@]}" "$@"
        number=$((number + 1))
    done
}

for kind in knn logreg; do
    judge nih64 "$kind" nih64.csv --labels "${FINDINGS[@]}"
    judge view "$kind" hannover.csv --labels view
    judge sex "$kind" hannover.csv --labels sex
done
NUMBER=1
for backbone in "${BACKBONES[@]}"; do
    # Bars instead of distortion, the default of segment.
    probe lungs-segment "$NUMBER" segment --backbone "$backbone" --size "$((SIZE * 2))" --dataset "$CXR/lungs.csv" --masks mask \
        --classes "left lung" "right lung" heart --decoder unet --epochs 40 --batch-size 4
    NUMBER=$((NUMBER + 1))
done
for results in "$OUT"/*-*; do
    echo "== $(basename "$results")"
    if [ ${#BACKBONES[@]} -gt 1 ]; then dinov2 eval compare "$results"/*; fi
done

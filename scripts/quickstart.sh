#!/usr/bin/env bash
# From films to a backbone in a few minutes on a CPU.
#   bash scripts/quickstart.sh                 synthetic chest films, written as DICOM
#   bash scripts/quickstart.sh DIR             your own DICOM, PNG, JPEG or TIFF files
#   bash scripts/quickstart.sh DIR OUT         results in OUT instead of quickstart_run; any further a.b=c words are settings
set -euo pipefail
FILMS="${1:-}"
OUT="${2:-quickstart_run}"
SETTINGS=("${@:3}")
if [ -n "$FILMS" ]; then
    if [ ! -e "$FILMS" ]; then
        echo "quickstart: $FILMS: no such folder. Give the folder that holds your films." >&2
        exit 2
    fi
    FILMS="$(realpath -- "$FILMS")"
fi
if [ $# -ge 2 ]; then OUT="$(realpath -m -- "$OUT")"; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
set_up_environment

TABLE=()
if [ -z "$FILMS" ]; then
    echo "== 1/4 drawing 64 synthetic films as DICOM"
    [ -f "$OUT/phantoms/labels.csv" ] || dinov2 phantom --output "$OUT/phantoms" --count 64 --seed 0
    FILMS="$OUT/phantoms/dicom"
    TABLE=(--table "$OUT/phantoms/labels.csv")
else
    echo "== 1/4 your films: $FILMS"
fi
echo "== 2/4 films to 8-bit PNG with a short side of 518 pixels"
dinov2 preprocess --input "$FILMS" --output "$OUT/pictures" "${TABLE[@]}"
echo "== 3/4 a look at what became of the films, and at what the networks will see"
dinov2 preview preprocess "$OUT/pictures" --output "$OUT/films.html"
dinov2 preview augmentation --dataset "$OUT/pictures/manifest.parquet" --output "$OUT/crops.png" --config-file cpu_smoke
echo "== 4/4 a short training of a tiny network"
dinov2 train --config-file cpu_smoke --output-dir "$OUT/run" "train.dataset_path=$OUT/pictures/manifest.parquet" "${SETTINGS[@]}"

STEP="$(ls "$OUT/run/exports" | sort -n | tail -1)"
cat <<END

Done. Where to look:
  $OUT/films.html                  the films, what was left out and why (open it in a browser)
  $OUT/pictures/images/            the films as PNG, and manifest.parquet, rejected.csv beside them
  $OUT/pictures.private/           who is who: the key of the ids and the crosswalk; keep it to yourself
  $OUT/crops.png                   crops and masks, as drawn during training
  $OUT/run/training_metrics.json   a line per logged step
  $OUT/run/exports/$STEP/           backbone.safetensors, dino_head.safetensors, backbone_card.json
First:    source $VENV/bin/activate        (the dinov2 command and its Python)
Load it:  python -c "import dinov2; print(dinov2.load_backbone('$OUT/run/exports/$STEP'))"
Next:     dinov2 train --config-file vitb14_cxr --output-dir runs/b14 train.dataset_path=$OUT/pictures/manifest.parquet
          (needs GPUs; this was a demonstration of the way, not a useful backbone)
END

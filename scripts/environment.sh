# Sourced by the other scripts: `set_up_environment [EXTRA]` makes .venv with this package in it, once per change of pyproject.toml.
# DINOV2_VENV=DIR uses another folder.

set_up_environment() {
    local extra="${1:-}"
    VENV="$(realpath -m -- "${DINOV2_VENV:-.venv}")"
    local stamp="$VENV/.installed-${extra:-none}"
    if ! command -v python3 >/dev/null; then
        echo "python3 is not installed; this package needs Python 3.11 or newer." >&2
        exit 2
    fi
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$(python3 --version) is too old; this package needs Python 3.11 or newer." >&2
        exit 2
    fi
    if [ ! -f "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        echo "== setting up $VENV (the first time this takes a few minutes)"
        python3 -m venv "$VENV"
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}"
        if [ "$extra" = test ]; then lay_out_torchvision_libraries; fi
        touch "$stamp"
    fi
    export PATH="$VENV/bin:$PATH"
}

# The real timm, torchvision, open_clip and torchxrayvision for the tests, in a folder that is not on Python's path.
# torchvision's wheels are bound to one torch and one CUDA, and one that cannot load its extension breaks the picture
# processors of transformers. The tests start processes that have the folder on their path and declare the operators
# that the extension would define (tests/torchvision_libraries.py); they use networks and transforms in Python alone.
# --no-deps: each of them would bring a torch of its own; what else they import is named here.
lay_out_torchvision_libraries() {
    local folder="$VENV/torchvision-libraries"
    rm -rf "$folder" "$folder.partial"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$folder.partial" \
        "timm>=1.0.20,<1.1" "torchvision>=0.24,<0.30" "open_clip_torch>=3.0,<4" "torchxrayvision>=1.3,<2" \
        "ftfy>=6.2,<7" "wcwidth>=0.2" "imageio>=2.30,<3" "scikit-image>=0.24,<1" "lazy-loader>=0.4" "tifffile>=2024.1" \
        "pandas>=2.2,<4"
    mv "$folder.partial" "$folder"
}

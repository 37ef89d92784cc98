# Sourced by the other scripts: makes the virtual environment .venv with this package in it, once per change of pyproject.toml.
# DINOV2_VENV=DIR uses another folder. Arguments: the extras to install, e.g. `source scripts/environment.sh test`.

VENV="${DINOV2_VENV:-.venv}"
EXTRAS="${1:-}"
STAMP="$VENV/.installed-${EXTRAS:-none}"

if ! command -v python3 >/dev/null; then
    echo "python3 is not installed; this package needs Python 3.11 or newer." >&2
    exit 2
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$(python3 --version) is too old; this package needs Python 3.11 or newer." >&2
    exit 2
fi
if [ ! -f "$STAMP" ] || [ pyproject.toml -nt "$STAMP" ]; then
    echo "== setting up $VENV (the first time this takes a few minutes)"
    python3 -m venv "$VENV"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".${EXTRAS:+[$EXTRAS]}"
    touch "$STAMP"
fi
export PATH="$PWD/$VENV/bin:$PATH"
case "$VENV" in /*) export PATH="$VENV/bin:$PATH" ;; esac

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
        touch "$stamp"
    fi
    export PATH="$VENV/bin:$PATH"
}

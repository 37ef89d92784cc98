#!/usr/bin/env bash
# Sets everything up and runs every check: format, lint, types, import contracts, tests.  bash scripts/test.sh [pytest words]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
set_up_environment test

echo "== ruff"
ruff format --check .
ruff check .
echo "== mypy"
mypy
echo "== import contracts"
lint-imports
if [ -n "${CI:-}${DINOV2_TEST_SLURM:-}" ] && slurm="$(timeout 300 bash scripts/local_slurm.sh start)"; then # else the tests of the array are skipped
    eval "$slurm"
    trap 'bash scripts/local_slurm.sh stop' EXIT
fi
if [ -n "${CI:-}" ]; then timeout 300 bash scripts/local_browser.sh >/dev/null || true; fi # without it the tests of the pages are skipped
echo "== pytest"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a core per test process; threads of their own would only get in each other's way
pytest --numprocesses "${DINOV2_TEST_PROCESSES:-2}" "$@"

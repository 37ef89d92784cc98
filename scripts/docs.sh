#!/usr/bin/env bash
# The documentation as a site: every link checked, the reference pages made from the code.
#   bash scripts/docs.sh            builds it into site/; a link that leads nowhere ends it with exit code 1
#   bash scripts/docs.sh serve      shows it on http://127.0.0.1:8000 and follows what is edited
#   bash scripts/docs.sh log        runs the commands of docs/start.md from a fresh clone and writes docs/start_log.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "${1:-build}" in
    build | serve | log) ;;
    *)
        sed -n '3,5s/^# *//p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
esac
if [ "${1:-build}" = log ]; then exec python3 scripts/docs_log.py "${@:2}"; fi
source scripts/environment.sh
set_up_environment docs
export NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true
if [ "${1:-build}" = serve ]; then exec mkdocs serve --dev-addr 127.0.0.1:8000 "${@:2}"; fi
mkdocs build --strict --site-dir "${2:-site}"
echo "Done: ${2:-site}/index.html. With search: bash scripts/docs.sh serve"

#!/usr/bin/env bash
# A browser without a window for the tests and the pictures of the documentation: Chromium from Debian's or Ubuntu's packages.
#   bash scripts/local_browser.sh     installs it where it is missing; prints where it is
# The tests of tests/browser take DINOV2_CHROMIUM, or what is on PATH, and are skipped where there is none.
# Exit codes: 3 it cannot be installed or does not start here; 2 a wrong word. Tried with Chromium 156, Debian 12.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/debian_packages.sh"
PACKAGES=(chromium fonts-liberation) # the fonts that the pages name; without any, text is boxes
NAMES=(chromium chromium-browser google-chrome)
PAGE='data:text/html,<title>up</title><p>it draws</p>'

say() { echo "local_browser: $*" >&2; }

give_up() {
    say "$*"
    exit 3
}

find_browser() {
    if [ -n "${DINOV2_CHROMIUM:-}" ]; then
        [ -x "$DINOV2_CHROMIUM" ] || give_up "DINOV2_CHROMIUM=$DINOV2_CHROMIUM: no such program"
        echo "$DINOV2_CHROMIUM"
        return
    fi
    command -v "${NAMES[@]}" | head -n 1
}

[ "$#" -eq 0 ] || { say "takes no word" && exit 2; }
browser="$(find_browser || true)"
if [ -z "$browser" ]; then
    say "installing ${PACKAGES[*]}"
    install_debian_packages Chromium "${PACKAGES[@]}"
    browser="$(find_browser || true)"
fi
[ -n "$browser" ] || give_up "apt-get installed ${PACKAGES[*]}, but none of ${NAMES[*]} is on PATH"
profile="$(mktemp -d)"
trap 'rm -rf -- "$profile"' EXIT
shown="$(timeout 60 "$browser" --headless --no-sandbox --disable-gpu --disable-background-networking \
    --user-data-dir="$profile" --dump-dom "$PAGE" 2>/dev/null || true)"
[[ "$shown" == *"it draws"* ]] || give_up "$browser does not draw a page here"
say "$("$browser" --version 2>/dev/null)"
echo "$browser"

#!/usr/bin/env bash
# A browser without a window for the tests and the pictures of the documentation: Chromium from Debian's or Ubuntu's packages.
#   bash scripts/local_browser.sh     installs it where it is missing; prints where it is
# The tests of tests/browser take DINOV2_CHROMIUM, or what is on PATH, and are skipped where there is none.
# Exit codes: 3 it cannot be installed or does not start here; 2 a wrong word. Tried with Chromium 156, Debian 12.
set -euo pipefail
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

install_packages() {
    local log as_root=()
    command -v apt-get >/dev/null || give_up "Chromium is not installed and there is no apt-get. Install: ${PACKAGES[*]}"
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || give_up "Chromium is not installed, and that needs root: apt-get install ${PACKAGES[*]}"
        as_root=(sudo -n)
    fi
    log="$(mktemp)"
    if ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${PACKAGES[@]}"; } >"$log" 2>&1; then
        give_up "apt-get could not install it; see $log"
    fi
    rm -f "$log"
}

[ "$#" -eq 0 ] || { say "takes no word" && exit 2; }
browser="$(find_browser || true)"
if [ -z "$browser" ]; then
    say "installing ${PACKAGES[*]}"
    install_packages
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

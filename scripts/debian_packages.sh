#!/usr/bin/env bash
# Sourced by the scripts that need a program of Debian's or Ubuntu's packages: `install_debian_packages WHAT PACKAGE...`
# installs them by apt-get, as root or with sudo. Where that cannot be, it calls the script's own `give_up` with a sentence.

install_debian_packages() {
    local what="$1" log as_root=()
    shift
    command -v apt-get >/dev/null || give_up "$what is not installed and there is no apt-get. Install: $*"
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || give_up "$what is not installed, and that needs root: apt-get install $*"
        as_root=(sudo -n)
    fi
    log="$(mktemp)"
    if ! { "${as_root[@]}" apt-get update -qq && "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@"; } >"$log" 2>&1; then
        give_up "apt-get could not install $*; see $log"
    fi
    rm -f "$log"
}
